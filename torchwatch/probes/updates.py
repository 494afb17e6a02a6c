"""How far a step moved the weights: ‖Δw‖/‖w‖.

At every step on a fixed scattered slice of each parameter, on thorough steps (see ``_thorough``) on all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes._columns import fill, read
from torchwatch.probes._slices import Moved, Slices, slices_of
from torchwatch.probes._thorough import Thorough
from torchwatch.records import missing_column

FULL_BYTES = 256 * 2**20
"""Parameters of at most so many bytes together, smallest first, are copied on thorough steps."""

_MOST_OPTIMIZERS = 16


@dataclass(slots=True, eq=False)
class _Whole:
    """Copies of whole parameters, from before the step."""

    indices: npt.NDArray[np.int64]
    parameters: list[torch.Tensor]
    copies: list[torch.Tensor]
    norms: torch.Tensor


class UpdateProbe(Probe):
    """Update ratio per parameter and over all of them; exactly 0 where nothing that was read has changed.

    A full copy moves six times the parameters' bytes, so a slice of at most ``update_slice`` elements per
    parameter is read before and after the step: exact for small parameters, an estimate for large ones.
    """

    name: ClassVar[str] = "updates"
    writes: ClassVar[tuple[str, ...]] = ("update_ratios", "update_ratio")

    def __init__(self) -> None:
        self._plans: dict[int, tuple[Sequence[int], int, list[Slices]]] = {}
        self._pending: list[Slices] = []
        self._whole: list[_Whole] = []
        self._thorough = Thorough()
        self._beyond: list[int] = []
        self._bytes = FULL_BYTES

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:
        """Read the slices; on thorough steps copy the rest as well."""
        self._pending, self._whole = [], []
        if not frame.gradients:
            return
        plan = self._plan(optimizer, held)
        for slices in plan:
            slices.before()
        self._pending = plan
        if self._thorough.due(frame):
            self._copy(plan)

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Read them again and enqueue the norms of the difference."""
        pending, self._pending = self._pending, []
        whole, self._whole = self._whole, []
        for slices in pending:
            frame.put(self.name, slices.after(frame))
        for group in whole:
            _torch.subtract_(group.copies, group.parameters)
            moved = frame.defer(_torch.norms(group.copies))
            weights = np.ones(len(group.indices))
            frame.put(self.name, Moved(group.indices, weights, moved, frame.defer(group.norms)))

    def _plan(self, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> list[Slices]:
        """The slices of an optimizer's parameters; made anew when a parameter's memory moved."""
        known = self._plans.get(id(optimizer))
        if (
            known is not None
            and known[1] == self.patient.structure
            and (known[0] is held or known[0] == held)
            and all(slices.current() for slices in known[2])
        ):
            return known[2]
        living = [(i, p) for i in held if (p := self.patient.parameters[i]()) is not None]
        plan = slices_of(living, self.config.update_slice)
        while len(self._plans) >= _MOST_OPTIMIZERS:
            del self._plans[next(iter(self._plans))]
        self._plans[id(optimizer)] = (held, self.patient.structure, plan)
        return plan

    def _copy(self, plan: list[Slices]) -> None:
        """Copy the parameters that the slices do not cover, as far as memory allows."""
        large = [
            (tensor.numel() * tensor.element_size(), index, tensor)
            for slices in plan
            for index, tensor in slices.beyond()
        ]
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, torch.Tensor]]] = {}
        left, beyond = self._bytes, []
        for size, index, tensor in sorted(large, key=lambda entry: entry[:2]):
            left -= size
            if left < 0:
                beyond.append(index)
            else:
                groups.setdefault((tensor.device, tensor.dtype), []).append((index, tensor))
        try:
            for members in groups.values():
                tensors = [tensor for _, tensor in members]
                copies = [tensor.clone() for tensor in tensors]
                where = np.array([index for index, _ in members], np.int64)
                self._whole.append(_Whole(where, tensors, copies, _torch.norms(copies)))
        except torch.OutOfMemoryError:
            self._whole, self._bytes = [], self._bytes // 4
        if beyond != self._beyond:
            self._beyond = beyond
            self.patient.version += 1  # the coverage changes, and the layout carries it

    def forget(self) -> None:
        """The model changed: what is read between its steps has old indices."""
        self._pending, self._whole = [], []

    def detach(self) -> None:
        """Let go of the parameters' memory."""
        self._plans, self._pending, self._whole = {}, [], []

    def coverage(self) -> str:
        """``ok``, or how many parameters are never read in full."""
        if not self._beyond:
            return "ok"
        return f"slices only of the {len(self._beyond)} largest parameters: copies are bounded"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Ratios; a parameter that was exactly 0 and moved has ratio 1. Overall, slices count by size.

        NaN: the parameter was not finite before the step. Infinite: the step made it so.
        """
        column = missing_column(frame.widths[0])
        squares = np.zeros((2, frame.widths[0]))
        for part in payloads:
            moved, norm = read(part.moved, values), read(part.norms, values)
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = np.where(norm > 0, moved / norm, np.where(moved > 0, 1.0, moved))
                ratio = np.where(np.isfinite(moved), ratio, np.inf)
                ratio = np.where(np.isfinite(norm), ratio, np.nan)
                squares[:, part.indices] = part.weights * np.square((moved, norm))
            fill(column, part.indices, ratio)
        moved_all, norm_all = map(float, np.sqrt(squares.sum(axis=1)))
        return {"update_ratios": column, "update_ratio": _overall(moved_all, norm_all)}


def _overall(moved: float, norm: float) -> float:
    if not math.isfinite(norm):
        return math.nan
    if not math.isfinite(moved):
        return math.inf
    return moved / norm if norm > 0 else float(moved > 0)
