"""Gradient norms: per parameter and global, as the optimizer sees them.

The RMS of a layer's gradients needs no field of its own: it is √(Σ norm² / Σ elements) over the layer's
parameters, from ``grad_norms`` and the shapes in the layout, and is computed where it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.probe import Frame, Probe, Slot, Values
from torchwatch.probes import _torch
from torchwatch.probes._columns import Numbers, fill, read
from torchwatch.probes._parts import Part, PartCache, readable_gradient
from torchwatch.records import missing_column


@dataclass(slots=True, eq=False)
class _Measured:
    """What was measured of some gradients; ``own``: the optimizer steps them.

    ``nonfinite`` is None where it was not counted: then ``absmax`` tells whether there are any.
    """

    indices: npt.NDArray[np.int64]
    own: npt.NDArray[np.bool_]
    norms: Numbers
    scale: Slot | None = None
    found: Slot | None = None
    absmax: Numbers | None = None
    nonfinite: Numbers | None = None


class GradientProbe(Probe):
    """L2 norm of every gradient that the step uses, plus those of parameters in no optimizer.

    The norm is accumulated in float32 (float64 for double precision); sparse gradients count by their values,
    complex ones by modulus. A fused optimizer's scaled gradients are divided by its ``grad_scale``. On
    sampled steps also the largest magnitude and the number of non-finite elements of each; off the CPU they
    are not counted: there 1 stands for "some".
    """

    name: ClassVar[str] = "gradients"
    writes: ClassVar[tuple[str, ...]] = (
        "grad_norms", "grad_norm", "grad_absmax", "grad_nonfinite", "grad_scale", "skipped",
    )  # fmt: skip

    def __init__(self) -> None:
        self._cache = PartCache()

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:
        """Enqueue the norms of all gradients present."""
        if not frame.gradients:
            return
        scale, found = _kept(frame, optimizer, "grad_scale"), _kept(frame, optimizer, "found_inf")
        parts = self._cache.of(self.patient, optimizer, held, self.patient.unowned())
        odd = list(parts.odd)
        for part in parts.parts:
            present = part.gradients()
            if present is None or not self._measure(frame, *present, scale, found):
                odd += part.indices.tolist()
        if odd:
            self._measure_odd(frame, odd, frozenset(held), scale, found)

    def _measure(
        self, frame: Frame, part: Part, tensors: list[torch.Tensor], scale: Slot | None, found: Slot | None
    ) -> bool:
        """Measure the gradients of a part together; False where they are not what the parameters are."""
        if not tensors:
            return True
        try:
            if part.starts is not None:
                measured = _packed(part, part.starts, tensors, sampled=frame.sampled)
            else:
                measured = _each(frame, part, tensors)
        except RuntimeError:  # sparse, of another precision, or on another device by now
            return False
        measured.scale, measured.found = scale, found
        frame.put(self.name, measured)
        return True

    def _measure_odd(
        self,
        frame: Frame,
        indices: list[int],
        held: frozenset[int],
        scale: Slot | None,
        found: Slot | None,
    ) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, torch.Tensor]]] = {}
        for index in indices:
            parameter = self.patient.parameters[index]()
            gradient = None if parameter is None else readable_gradient(parameter)
            if gradient is not None:
                groups.setdefault((gradient.device, gradient.dtype), []).append((index, gradient))
        for (device, _), members in groups.items():
            where = np.array([i for i, _ in members], np.int64)
            own = np.array([i in held for i, _ in members], np.bool_)
            part = Part(where, own, [], [], None, device.type == "cpu")
            measured = _each(frame, part, [gradient for _, gradient in members])
            measured.scale, measured.found = scale, found
            frame.put(self.name, measured)

    def detach(self) -> None:
        """Drop everything."""
        self._cache.clear()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Columns, global norm over the stepped parameters, AMP scale and skip."""
        width = frame.widths[0]
        column = missing_column(width)
        squares = np.zeros(width)
        stepped = False
        fields: dict[str, Any] = {}
        for measured in payloads:
            scale = 1.0
            if measured.scale is not None:
                scale = fields["grad_scale"] = float(values[measured.scale][0])
            if measured.found is not None:
                fields["skipped"] = bool(values[measured.found][0] > 0)
            norms = read(measured.norms, values) / scale
            fill(column, measured.indices, norms)
            squares[measured.indices[measured.own]] = norms[measured.own] ** 2
            stepped = stepped or bool(measured.own.any())
            if measured.absmax is not None:
                _fill_sampled(fields, measured, values, scale, width)
        fields["grad_norms"] = column
        if stepped:
            fields["grad_norm"] = float(np.sqrt(np.sum(squares)))
        return fields


def _fill_sampled(
    fields: dict[str, Any], measured: _Measured, values: list[Values], scale: float, width: int
) -> None:
    absmax = read(measured.absmax, values) / scale  # type: ignore[arg-type]
    fill(fields.setdefault("grad_absmax", missing_column(width)), measured.indices, absmax)
    some = (~np.isfinite(absmax)).astype(np.float64)
    count = some if measured.nonfinite is None else read(measured.nonfinite, values)
    fill(fields.setdefault("grad_nonfinite", missing_column(width)), measured.indices, count)


def _kept(frame: Frame, optimizer: torch.optim.Optimizer | None, name: str) -> Slot | None:
    """A copy of what a GradScaler hung on the optimizer: it is overwritten in place later."""
    tensor = getattr(optimizer, name, None)
    return frame.defer(tensor.detach().clone()) if isinstance(tensor, torch.Tensor) else None


def _packed(
    part: Part, starts: npt.NDArray[np.int64], tensors: list[torch.Tensor], *, sampled: bool
) -> _Measured:
    """Small tensors on the CPU: in one copy."""
    flat = _torch.flattened(tensors).numpy()
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.add.reduceat(flat * flat, starts))
        measured = _Measured(part.indices, part.own, norms)
        if sampled:
            measured.absmax = np.maximum.reduceat(np.abs(flat), starts)
            if np.isfinite(measured.absmax).all():
                measured.nonfinite = np.zeros(len(tensors))
            else:
                measured.nonfinite = np.add.reduceat(~np.isfinite(flat), starts, dtype=np.float64)
    return measured


def _each(frame: Frame, part: Part, tensors: list[torch.Tensor]) -> _Measured:
    """Every tensor by itself, all in one call where torch can."""
    measured = _Measured(part.indices, part.own, frame.defer(_torch.norms(tensors)))
    if not frame.sampled:
        return measured
    absmax = _torch.absmaxes(tensors)
    measured.absmax = frame.defer(absmax)
    if part.host:  # a value can be looked at without waiting
        counts = np.zeros(len(tensors))
        for place in (~absmax.isfinite()).nonzero().view(-1).tolist():
            counts[place] = float((tensors[place] * 0).nan_to_num_(nan=1.0).sum(dtype=torch.float32))
        measured.nonfinite = counts
    return measured
