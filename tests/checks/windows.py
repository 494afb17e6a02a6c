"""Hand-made runs with profiler windows, and a real one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.helpers_checks import layout, records
from tests.helpers_watch import record
from torchwatch import WatchConfig
from torchwatch.records import LayerInfo, Profile, Record


def profiled(
    layers: Mapping[str, tuple[str, int, float]],
    *,
    forward_s: float | None = 1.0,
    backward_s: float | None = 2.0,
    intervals: Mapping[str, Any] | None = None,
    windows: int = 3,
    rows: Any = (),
    **data: Any,
) -> list[Record]:
    """A run with windows; ``layers`` maps a name to type, parameters and share of the layers' time.

    ``rows`` replaces the window's layers, ``data`` are its other keys.
    """
    infos = [LayerInfo(n, kind, count, order=i) for i, (n, (kind, count, _)) in enumerate(layers.items())]
    shares = [
        {"name": n or "Net", "forward_s": share, "backward_s": 2 * share, "share": share}
        for n, (_, _, share) in layers.items()
    ]
    given = {"steps": 3, "forward_s": forward_s, "backward_s": backward_s} | data
    given["layers"] = shares if rows == () else rows
    extra = {60 * i: [Profile(step=60 * i - 2, data=dict(given))] for i in range(1, windows + 1)}
    return records(
        [1.0] * (60 * windows), layers=layout(infos, parameters=[]), extra=extra, intervals=intervals or {}
    )


def train_and_profile(model: nn.Module, batch: torch.Tensor, path: Path) -> list[Record]:
    """A real training of some steps with windows of the profiler."""

    def body(watch: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(30):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    config = WatchConfig(profile_every=12, activations_every=1, terminal=False, energy=False)
    return record(model, body, path, config)
