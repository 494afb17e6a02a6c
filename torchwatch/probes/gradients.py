"""Gradient norms: per parameter and global, as the optimizer sees them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.records import Column, missing_column

_LARGEST = float(np.finfo(np.float32).max)


class GradientProbe(Probe):
    """L2 norm of every gradient that the step uses, plus those of parameters in no optimizer.

    The norm is accumulated in float32 (float64 for double precision); sparse gradients count by their values,
    complex ones by modulus. A fused optimizer's scaled gradients are divided by its ``grad_scale``.
    """

    name: ClassVar[str] = "gradients"
    writes: ClassVar[tuple[str, ...]] = ("grad_norms", "grad_norm", "grad_scale", "skipped")

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:
        """Enqueue the norms of all gradients present."""
        if not frame.gradients:
            return
        stepped = len(held)
        for indices, tensors, own in self._groups(held, stepped):
            slot = frame.defer(_torch.norms(tensors))
            frame.put(self.name, (indices, own, slot, *self._scale(frame, optimizer)))

    def _groups(
        self, held: Sequence[int], stepped: int
    ) -> Iterable[tuple[list[int], list[torch.Tensor], list[bool]]]:
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[torch.Tensor], list[bool]]] = {}
        for place, index in enumerate((*held, *self.patient.unowned())):
            parameter = self.patient.parameters[index]()
            gradient = None if parameter is None else readable_gradient(parameter)
            if gradient is None:
                continue
            group = groups.setdefault((gradient.device, gradient.dtype), ([], [], []))
            group[0].append(index)
            group[1].append(gradient)
            group[2].append(place < stepped)
        return groups.values()

    @staticmethod
    def _scale(frame: Frame, optimizer: torch.optim.Optimizer | None) -> tuple[int | None, int | None]:
        scale, found = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        return (
            frame.defer(scale.detach().clone()) if isinstance(scale, torch.Tensor) else None,
            frame.defer(found.detach().clone()) if isinstance(found, torch.Tensor) else None,
        )

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Column of norms, global norm over the stepped parameters, AMP scale and skip."""
        column = missing_column(frame.widths[0])
        own: dict[int, float] = {}
        fields: dict[str, Any] = {}
        for indices, stepped, slot, scale, found in payloads:
            norms = values[slot]
            if scale is not None:
                fields["grad_scale"] = float(values[scale][0])
                norms = norms / fields["grad_scale"]
            if found is not None:
                fields["skipped"] = bool(values[found][0] > 0)
            fill(column, indices, norms)
            own |= {i: float(n) for i, n, mine in zip(indices, norms, stepped, strict=True) if mine}
        fields["grad_norms"] = column
        if own:
            fields["grad_norm"] = float(np.sqrt(np.sum(np.square(list(own.values())))))
        return fields


def fill(column: Column, indices: Sequence[int], values: Values) -> None:
    """Write finite values into a float32 column without letting them overflow to infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        clipped = np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), values)
        column[list(indices)] = clipped.astype(np.float32)


def readable_gradient(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """The local, dense, non-empty gradient of a parameter, or None."""
    gradient = parameter.grad
    return None if gradient is None else readable(gradient)


def readable(tensor: torch.Tensor) -> torch.Tensor | None:
    """The local values of a tensor as a plain dense float or complex tensor, None where there are none.

    Shards of a distributed tensor are taken as they are: a collective issued by one rank alone deadlocks.
    """
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    elif tensor.layout is not torch.strided:
        return None
    if tensor.numel() == 0 or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        return None
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.is_floating_point() else None
