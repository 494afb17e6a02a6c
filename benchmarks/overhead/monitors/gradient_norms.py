"""Norms of the gradients before every step: Lightning's own function, and a loop written by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.overhead.monitors.base import Monitor
from benchmarks.overhead.workloads import Workload


class LightningNorms(Monitor):
    """``lightning.pytorch.utilities.grad_norm``, as in ``on_before_optimizer_step``; nothing is logged."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        from lightning.pytorch.utilities import grad_norm

        self._grad_norm = grad_norm
        self.seen: dict[str, float] = {}

    def before_step(self) -> None:
        self.seen = self._grad_norm(self.workload.model, norm_type=2)


class ItemNorms(Monitor):
    """``.grad.norm().item()`` per parameter."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        self.seen: dict[str, float] = {}

    def before_step(self) -> None:
        for name, parameter in self.workload.model.named_parameters():
            if parameter.grad is not None:
                self.seen[name] = parameter.grad.norm().item()
