"""What a monitor under test is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead.workloads import Workload


class Monitor:
    """Watches one workload in a process of its own; this one does nothing: the bare loop.

    Args:
        workload: what is trained.
        folder: an empty one, for whatever the monitor writes.
    """

    def __init__(self, workload: Workload, folder: Path) -> None:
        self.workload, self.folder = workload, folder

    def turn(self) -> None:
        """A block of steps is about to begin, after a pause in which others ran."""

    def before_step(self) -> None:
        """Gradients are there, the optimizer has not stepped."""

    def after_step(self, loss: torch.Tensor) -> None:
        """The optimizer has stepped."""

    def warmed_up(self) -> None:
        """What comes from now on counts."""

    def close(self) -> dict[str, Any]:
        """Let go of the model; returns what the monitor says of its own cost, if anything."""
        return {}


def leaves(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """The modules without children, by name."""
    return [(name, m) for name, m in model.named_modules() if next(m.children(), None) is None]
