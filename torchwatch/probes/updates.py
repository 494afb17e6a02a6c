"""How far a step moved the weights: ‖Δw‖/‖w‖ on a fixed scattered slice of every parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes.gradients import fill
from torchwatch.records import missing_column


@dataclass(slots=True, eq=False)
class _Slices:
    """Views of the slices of all parameters of one device and dtype, and the buffers they are read into."""

    indices: list[int]
    views: list[torch.Tensor]
    before: torch.Tensor
    after: torch.Tensor
    parts_before: tuple[torch.Tensor, ...]
    parts_after: tuple[torch.Tensor, ...]


class UpdateProbe(Probe):
    """Update ratio per parameter and over all of them; exactly 0 where no element of the slice changed.

    A full copy would move six times the parameters' bytes, so at most ``update_slice`` elements per
    parameter, evenly scattered, are read before and after the step.
    """

    name: ClassVar[str] = "updates"
    writes: ClassVar[tuple[str, ...]] = ("update_ratios", "update_ratio")

    def __init__(self) -> None:
        self._plans: dict[int, tuple[list[int], list[int], list[_Slices]]] = {}
        self._pending: list[tuple[_Slices, torch.Tensor]] = []

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:
        """Read the slices."""
        self._pending = []
        if not frame.gradients:
            return
        for slices in self._plan(optimizer, held):
            torch.cat(slices.views, out=slices.before)
            self._pending.append((slices, _torch.norms(slices.parts_before)))

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Read them again and enqueue the norms of the difference."""
        for slices, norms in self._pending:
            torch.cat(slices.views, out=slices.after)
            slices.after.sub_(slices.before)
            moved = frame.defer(_torch.norms(slices.parts_after))
            frame.put(self.name, (slices.indices, moved, frame.defer(norms)))
        self._pending = []

    def _plan(self, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> list[_Slices]:
        """The slices of an optimizer's parameters; made anew when a parameter's memory moved."""
        places = [0 if p is None else _address(p) for p in (self.patient.parameters[i]() for i in held)]
        known = self._plans.get(id(optimizer))
        if known is not None and known[0] == list(held) and known[1] == places:
            return known[2]
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[torch.Tensor]]] = {}
        for index in held:
            parameter = self.patient.parameters[index]()
            view = None if parameter is None else _scattered(parameter, self.config.update_slice)
            if view is not None:
                indices, views = groups.setdefault((view.device, view.dtype), ([], []))
                indices.append(index)
                views.append(view)
        plan = [_slices(indices, views) for indices, views in groups.values()]
        self._plans[id(optimizer)] = (list(held), places, plan)
        return plan

    def detach(self) -> None:
        """Let go of the parameters' memory."""
        self._plans, self._pending = {}, []

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Ratios; a weight that was exactly 0 and moved has ratio 1."""
        column = missing_column(frame.widths[0])
        squares = np.zeros(2)
        for indices, moved_slot, norm_slot in payloads:
            moved, norm = values[moved_slot], values[norm_slot]
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = np.where(norm > 0, moved / norm, np.where(moved > 0, 1.0, moved))
                ratio = np.where(np.isnan(norm), np.nan, ratio)
                squares += (np.sum(moved**2), np.sum(norm**2))
            fill(column, indices, ratio)
        moved_all, norm_all = np.sqrt(squares)
        if norm_all > 0 or np.isnan(norm_all):
            overall = float(moved_all / norm_all) if np.isfinite(norm_all) else float("nan")
        else:
            overall = 1.0 if moved_all > 0 else float(moved_all)
        return {"update_ratios": column, "update_ratio": overall}


def _slices(indices: list[int], views: list[torch.Tensor]) -> _Slices:
    sizes = [v.numel() for v in views]
    before, after = (torch.empty(sum(sizes), dtype=views[0].dtype, device=views[0].device) for _ in range(2))
    return _Slices(indices, views, before, after, before.split(sizes), after.split(sizes))


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _address(parameter: torch.nn.Parameter) -> int:
    if isinstance(parameter, torch.nn.parameter.UninitializedParameter) or parameter.is_meta:
        return 0
    local = _local(parameter)
    return local.data_ptr() if local.layout is torch.strided else 0


def _scattered(parameter: torch.nn.Parameter, most: int) -> torch.Tensor | None:
    """A one-dimensional view of at most ``most`` evenly spaced elements; None where memory is not plain."""
    if isinstance(parameter, torch.nn.parameter.UninitializedParameter) or parameter.is_meta:
        return None
    local = _local(parameter).detach()
    if local.layout is not torch.strided or local.is_quantized or local.numel() == 0:
        return None
    if local.is_complex():
        local = torch.view_as_real(local)
    if not local.is_floating_point():
        return None
    order = sorted(range(local.dim()), key=local.stride, reverse=True)
    dense = local.permute(order)
    if not dense.is_contiguous():
        return None
    step = -(-local.numel() // most)
    # A stride coprime to 2, 3 and 5 does not walk down one column of the matrix again and again.
    while step > 1 and any(step % p == 0 for p in (2, 3, 5)):
        step += 1
    return dense.view(-1)[::step]
