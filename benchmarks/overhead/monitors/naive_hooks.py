"""What one writes first: a forward hook per layer, six statistics of its output fetched by ``.item()``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead.monitors.base import Monitor, leaves
from benchmarks.overhead.workloads import Workload


class NaiveHooks(Monitor):
    """Mean, standard deviation, minimum, maximum, norm and share of zeros of every leaf's output."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        self.seen: dict[str, dict[str, float]] = {}
        self._handles = [
            module.register_forward_hook(functools.partial(self._hook, name))
            for name, module in leaves(workload.model)
        ]

    def _hook(self, name: str, _module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        values = output.detach()
        self.seen[name] = {
            "mean": values.mean().item(),
            "std": values.std().item(),
            "min": values.min().item(),
            "max": values.max().item(),
            "norm": values.norm().item(),
            "zeros": (values == 0).float().mean().item(),
        }

    def close(self) -> dict[str, Any]:
        for handle in self._handles:
            handle.remove()
        return {}
