"""A re-implementation of the idea published as Composer's ``ActivationMonitor``, on every step.

Per layer the L2 norm, the mean, the kurtosis and the maximum over the last dimension, averaged over the
others and fetched by ``.item()``. Composer itself is not run. It also measures every container and every
input, so this is the cheaper variant: outputs of leaves only, and nothing is logged anywhere.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from benchmarks.overhead.monitors.base import Monitor, leaves
from benchmarks.overhead.workloads import Workload


def kurtosis(values: torch.Tensor) -> torch.Tensor:
    """Fourth standardised moment over the last dimension, averaged over the others."""
    centred = values - values.mean(-1, keepdim=True)
    squares = centred.square()
    return (squares.square().mean(-1) / squares.mean(-1).square()).mean()


class ComposerStyle(Monitor):
    """Four statistics of every leaf's output."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        super().__init__(workload, folder)
        self.seen: dict[str, float] = {}
        self._handles = [
            module.register_forward_hook(functools.partial(self._hook, name))
            for name, module in leaves(workload.model)
        ]

    def _hook(self, name: str, _module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        values = output.detach()
        self.seen[f"l2_norm/{name}"] = torch.linalg.vector_norm(values, dim=-1).mean().item()
        self.seen[f"average/{name}"] = values.mean().item()
        self.seen[f"kurtosis/{name}"] = kurtosis(values).item()
        self.seen[f"max/{name}"] = values.amax(-1).mean().item()

    def close(self) -> dict[str, Any]:
        for handle in self._handles:
            handle.remove()
        return {}
