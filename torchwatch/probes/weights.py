"""The weights after a step, on sampled steps: norms, values near zero, values that are no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes._columns import Numbers, fill, read
from torchwatch.probes._parts import Part, PartCache, readable
from torchwatch.probes._thorough import Thorough
from torchwatch.records import missing_column

NEAR_ZERO = 1e-6
"""A weight is near zero up to this share of its parameter's RMS."""

_BLOCK = 65_536
"""Elements that are counted at once: they stay in the cache between the three kernels that count them."""


@dataclass(slots=True, eq=False)
class _Measured:
    """What was measured of some parameters; None where it was not."""

    indices: npt.NDArray[np.int64]
    norms: Numbers
    nonfinite: npt.NDArray[np.float64] | None = None
    near_zero: Numbers | None = None


class WeightProbe(Probe):
    """L2 norm of every stepped parameter after the step, its share near zero and its non-finite elements.

    Near zero is abs(w) ≤ 1e-6 of the parameter's RMS (all of a parameter that is zero), counted on thorough
    steps (see ``_thorough``). Off the CPU non-finite elements are not counted: 1 stands for "some".
    """

    name: ClassVar[str] = "weights"
    writes: ClassVar[tuple[str, ...]] = ("weight_norms", "weight_zero_fraction", "weight_nonfinite")

    def __init__(self) -> None:
        self._cache = PartCache()
        self._thorough = Thorough()

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:
        """Enqueue the norms; count."""
        if not frame.sampled:
            return
        thorough = self._thorough.due(frame)
        parts = self._cache.of(self.patient, optimizer, held)
        odd = list(parts.odd)
        for part in parts.parts:
            present = part.parameters()
            if present is None:
                odd += part.indices.tolist()
            else:
                self._measure(frame, *present, thorough=thorough)
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, torch.Tensor]]] = {}
        for index in odd:
            parameter = self.patient.parameters[index]()
            values = None if parameter is None else readable(parameter)
            if values is not None:
                groups.setdefault((values.device, values.dtype), []).append((index, values))
        for (device, _), members in groups.items():
            where = np.array([index for index, _ in members], np.int64)
            part = Part(where, np.ones(len(members), np.bool_), [], [], None, device.type == "cpu")
            self._measure(frame, part, [values for _, values in members], thorough=thorough)

    def _measure(self, frame: Frame, part: Part, tensors: list[torch.Tensor], *, thorough: bool) -> None:
        if not tensors:
            return
        measure = _each if part.starts is None else _packed
        frame.put(self.name, measure(frame, part, tensors, thorough=thorough))

    def detach(self) -> None:
        """Drop everything."""
        self._cache.clear()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """The columns."""
        width = frame.widths[0]
        fields: dict[str, Any] = {n: missing_column(width) for n in ("weight_norms", "weight_nonfinite")}
        for measured in payloads:
            norms = read(measured.norms, values)
            some = (~np.isfinite(norms)).astype(np.float64)
            fill(fields["weight_norms"], measured.indices, norms)
            count = some if measured.nonfinite is None else measured.nonfinite
            fill(fields["weight_nonfinite"], measured.indices, count)
            if measured.near_zero is not None:
                column = fields.setdefault("weight_zero_fraction", missing_column(width))
                fill(column, measured.indices, read(measured.near_zero, values))
        return fields


def _packed(frame: Frame, part: Part, tensors: list[torch.Tensor], *, thorough: bool) -> _Measured:  # noqa: ARG001
    """Small tensors on the CPU: in one copy."""
    flat = _torch.flattened(tensors).numpy()
    starts, sizes = part.starts, np.array(part.sizes)
    assert starts is not None
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.add.reduceat(flat * flat, starts))
        measured = _Measured(part.indices, norms, np.zeros(len(sizes)))
        if not np.isfinite(norms).all():
            measured.nonfinite = np.add.reduceat(~np.isfinite(flat), starts, dtype=np.float64)
        if thorough:
            limits = np.repeat(NEAR_ZERO * norms / np.sqrt(sizes), sizes)
            share = np.add.reduceat(np.abs(flat) <= limits, starts, dtype=np.float64) / sizes
            measured.near_zero = np.where(np.isfinite(norms), share, np.nan)
    return measured


def _each(frame: Frame, part: Part, tensors: list[torch.Tensor], *, thorough: bool) -> _Measured:
    """Every tensor by itself."""
    norms = _torch.norms(tensors)
    measured = _Measured(part.indices, frame.defer(norms))
    if part.host:  # values can be looked at without waiting
        numbers = norms.tolist()
        counts = [0.0 if np.isfinite(n) else _nonfinite(t) for n, t in zip(numbers, tensors, strict=True)]
        measured.nonfinite = np.array(counts)
        if thorough:
            shares = [_near_zero(t, norm) for t, norm in zip(tensors, numbers, strict=True)]
            measured.near_zero = np.array(shares)
    elif thorough:
        limits = [NEAR_ZERO * n / t.numel() ** 0.5 for n, t in zip(norms.unbind(), tensors, strict=True)]
        near = [(t.abs() <= limit).float().mean() for t, limit in zip(tensors, limits, strict=True)]
        measured.near_zero = frame.defer(torch.stack(near))
    return measured


def _nonfinite(tensor: torch.Tensor) -> float:
    return float((tensor * 0).nan_to_num_(nan=1.0).sum(dtype=torch.float32))


def _near_zero(tensor: torch.Tensor, norm: float) -> float:
    """Share of elements near zero, NaN where there is no RMS to compare with.

    ``abs(w) <= limit`` costs 5 to 25 reads on the CPU, shrinking to signs and their dot product three.
    """
    if not np.isfinite(norm):
        return float("nan")
    limit = NEAR_ZERO * norm / tensor.numel() ** 0.5
    beyond = 0.0
    for block in tensor.detach().reshape(-1).split(_BLOCK):
        signs = torch.hardshrink(block, limit).sign_()
        signs = signs if signs.dtype == torch.float64 else signs.float()
        beyond += float(torch.dot(signs, signs))
    return 1 - beyond / tensor.numel()
