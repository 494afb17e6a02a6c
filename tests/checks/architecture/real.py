"""What a real Watcher records of a model: the layouts that these tests judge are not made by hand."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo_shims import load
from tests.zoo_timm import PICTURES
from tests.zoo_transformers import LANGUAGES
from torchwatch import WatchConfig, Watcher
from torchwatch.records import Layout, Record
from torchwatch.runfile import read_records

STEPS = 24


def recorded(
    model: nn.Module,
    *inputs: Tensor,
    steps: int = 2,
    declare: dict[str, Any] | None = None,
    rate: Callable[[int], float] = lambda step: 1e-3,
    **keywords: Tensor,
) -> list[Record]:
    """The run file of a few steps of training; ``rate`` is the learning rate of each step, from 0."""
    config = WatchConfig(
        terminal=False, budget=None, energy=False, interval_steps=10, declare=declare or {}, drain_s=60
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        with Watcher(model, Path(folder) / "run.jsonl", config=config) as watch:
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = rate(step)
                optimizer.zero_grad()
                loss = _loss(model(*inputs, **keywords))
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
        return list(read_records(watch.path))


def _loss(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs.square().mean()
    if isinstance(outputs, tuple):
        return _loss(outputs[0])
    loss = outputs.get("loss")
    return loss.mean() if loss is not None else _loss(next(iter(outputs.values())))


@functools.cache
def zoo(name: str, steps: int = 2) -> tuple[Record, ...]:
    """A model of ``tests/zoo_transformers.py`` or ``tests/zoo_timm.py``, trained a few steps."""
    transformers, timm = load()
    torch.manual_seed(0)
    row, library = (LANGUAGES[name], transformers) if name in LANGUAGES else (PICTURES[name], timm)
    return tuple(recorded(row.make(library), steps=steps, **row.batch()))


def changed(records: list[Record] | tuple[Record, ...], **fields: Any) -> list[Record]:
    """The same run with other fields in its layouts."""
    return [dataclasses.replace(r, **fields) if isinstance(r, Layout) else r for r in records]


def layout_of(records: list[Record] | tuple[Record, ...]) -> Layout:
    """The first layout."""
    return next(r for r in records if isinstance(r, Layout))
