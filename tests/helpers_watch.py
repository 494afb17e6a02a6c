"""Runs a small training under a Watcher and gives back its records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torchwatch import WatchConfig, Watcher
from torchwatch.records import Record, Step, Steps, expand
from torchwatch.runfile import read_records

EVERY_STEP = WatchConfig(activations_every=1, terminal=False)


def record(
    model: torch.nn.Module,
    body: Callable[[Watcher], object],
    path: Path,
    config: WatchConfig = EVERY_STEP,
    **keywords: Any,
) -> list[Record]:
    """All records of a run in which ``body(watch)`` trains ``model``."""
    with Watcher(model, path, config=config, sinks=[], **keywords) as watch:
        body(watch)
    return list(read_records(watch.path))


def steps_of(records: list[Record]) -> list[Step]:
    """The single steps among the records, ``steps`` lines expanded."""
    found: list[Step] = []
    for item in records:
        if isinstance(item, Step):
            found.append(item)
        elif isinstance(item, Steps):
            found.extend(expand(item))
    return found
