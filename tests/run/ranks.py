"""Hand-built run files of several ranks."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.records import LayerInfo, Layout, OptimizerInfo, ParameterInfo, Record, RunHeader, encode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BEGIN = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
SHARDS = "this rank's shards only"


def header(rank: int, world: int = 2, after_s: float = 0.0, **fields: Any) -> RunHeader:
    """The header of a rank whose watcher was entered ``after_s`` seconds after noon."""
    time = (BEGIN + dt.timedelta(seconds=after_s)).isoformat(timespec="seconds")
    given = {"run_id": f"{rank}-{after_s}", "time": time} | fields
    return RunHeader(rank=rank, world=world, **given)


def layout(*names: str, gradients: str = "ok", stepped: bool = True, step: int = 1) -> Layout:
    return Layout(
        step=step,
        layers=[LayerInfo("", "Net")],
        parameters=[
            ParameterInfo(
                n, 0, [4], "float32", optimizer=0 if stepped else None, group=0 if stepped else None
            )
            for n in names
        ],
        optimizers=[OptimizerInfo("SGD", [{"lr": 0.1}])],
        coverage={"gradients": gradients},
    )


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def write(path: Path, first: Record, records: Iterable[Record] = (), more: bytes = b"") -> Path:
    path.write_bytes(b"".join(map(encode, [first, *records])) + more)
    return path
