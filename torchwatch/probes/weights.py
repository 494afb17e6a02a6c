"""Weight norms on sampled steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes.gradients import fill, readable
from torchwatch.records import missing_column


class WeightProbe(Probe):
    """L2 norm of every stepped parameter after the step; NaN or infinite where the parameter is."""

    name: ClassVar[str] = "weights"
    writes: ClassVar[tuple[str, ...]] = ("weight_norms",)

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Enqueue the norms."""
        if not frame.sampled:
            return
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[torch.Tensor]]] = {}
        for index in held:
            parameter = self.patient.parameters[index]()
            values = None if parameter is None else readable(parameter)
            if values is not None:
                indices, tensors = groups.setdefault((values.device, values.dtype), ([], []))
                indices.append(index)
                tensors.append(values)
        for indices, tensors in groups.values():
            frame.put(self.name, (indices, frame.defer(_torch.norms(tensors))))

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """The column of norms."""
        column = missing_column(frame.widths[0])
        for indices, slot in payloads:
            fill(column, indices, values[slot])
        return {"weight_norms": column}
