"""torchwatch, and what it says of its own cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead.monitors.base import Monitor
from benchmarks.overhead.workloads import Workload
from torchwatch import WatchConfig, Watcher
from torchwatch.records import Alert, End, Interval
from torchwatch.runfile import read_records

_NEVER = 10_000_000


class Watching(Monitor):
    """``with Watcher(model) as watch`` around the loop, the loss logged on every step."""

    config = WatchConfig(terminal=False)

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        self._watch = Watcher(workload.model, folder / "run.jsonl", config=self.config, sinks=[])
        self._watch.__enter__()
        self._first_interval = 0

    def turn(self) -> None:
        # An evaluation is no training time: the pause in which the other monitors ran is not counted.
        self._watch.log(eval_turn=0.0)

    def after_step(self, loss: torch.Tensor) -> None:
        self._watch.log(loss=loss)

    def warmed_up(self) -> None:
        self._watch.epoch()  # closes the interval, so that those after it hold measured blocks alone

    def close(self) -> dict[str, Any]:
        self._watch.__exit__(None, None, None)
        records = list(read_records(self._watch.path))
        end = next(r for r in records if isinstance(r, End))
        intervals = [r for r in records if isinstance(r, Interval) and (r.epoch or 0) > 0]
        busy_s = sum(i.busy_s or 0.0 for i in intervals)
        watch_s = sum((i.busy_s or 0.0) * (i.watch_share or 0.0) for i in intervals)
        return {
            "busy_s": busy_s,
            "watch_s": watch_s,
            "end_watch_share": end.watch_share,
            "gradients_every": intervals[-1].gradients_every if intervals else None,
            "activations_every": intervals[-1].activations_every if intervals else None,
            "alerts": sorted({r.check for r in records if isinstance(r, Alert) and r.severity != "info"}),
            "zoomed_steps": end.zoomed_steps,
            "dropped": end.dropped,
            "bytes_per_step": self._watch.path.stat().st_size / max(end.steps, 1),
        }


class Everything(Watching):
    """Everything on every step, no budget."""

    config = WatchConfig(terminal=False, activations_every=1, gradients_every=1, budget=None)


class Idle(Watching):
    """Attached and recording step times and losses, but measuring nothing."""

    config = WatchConfig(
        terminal=False,
        activations_every=_NEVER,
        gradients_every=_NEVER,
        dense_steps=0,
        zoom_steps=0,
        sentinel=False,
        budget=None,
    )
