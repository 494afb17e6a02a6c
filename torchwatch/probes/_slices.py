"""Fixed scattered slices of parameters, read as cheaply as can be.

Of a large parameter the slice is a number of short runs, each one cache line long, evenly scattered: reading
single elements instead would move a whole line for each of them (5 to 20 times slower on the CPU). All large
parameters of a group have slices of the same length, so that one kernel reduces them all.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.probe import Frame
from torchwatch.probes import _torch
from torchwatch.probes._columns import Numbers

RUN = 16
"""Elements in a run: one cache line of float32."""

_TOTAL = 131_072
"""Elements of the slices of all large parameters together: they stay in the second-level cache …"""

_FEWEST = 512
"""… but of each parameter at least so many."""

_NUMPY = (torch.float32, torch.float64)


@dataclass(slots=True, eq=False)
class Moved:
    """Norms of slices before a step and of what it changed; ``weights`` are elements per slice element."""

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    moved: Numbers
    norms: Numbers


class Slices:
    """Slices of parameters of one device and dtype, either whole small tensors or equally many runs of each.

    Args:
        members: index and parameter.
        length: elements per slice; None: the tensors are small and read whole.
    """

    def __init__(self, members: Sequence[tuple[int, torch.nn.Parameter]], length: int | None) -> None:
        views = [view(_local(p), length) for _, p in members]
        first = views[0]
        self.indices = np.array([i for i, _ in members], np.int64)
        self.references = [weakref.ref(p) for _, p in members]
        self.addresses = [_address(p) for _, p in members]
        self.weights = np.array(
            [_dense(_local(p)).numel() / v.numel() for (_, p), v in zip(members, views, strict=True)]
        )
        self._views = views
        sizes = [v.numel() for v in views]
        self._both = first.new_empty((2, sum(v.shape[0] for v in views), *first.shape[1:]))
        self._before, self._after = self._both
        self._starts = np.array([0, *accumulate(sizes[:-1])], np.int64)
        self._flat = self._both.view(2, -1)
        self._rows = None if length is None else self._both.view(2, len(views), -1)
        host = first.device.type == "cpu" and first.dtype in _NUMPY
        self._numbers = self._flat.numpy() if host and length is None else None
        self._parts = [p for half in self._flat for p in half.split(sizes)]

    def current(self) -> bool:
        """Whether the parameters are still where they were."""
        return self.addresses == [0 if (p := r()) is None else _address(p) for r in self.references]

    def beyond(self) -> list[tuple[int, torch.Tensor]]:
        """Index and values of the parameters that the slices do not cover whole."""
        if self._rows is None:
            return []
        found = ((int(i), r()) for i, r in zip(self.indices, self.references, strict=True))
        return [(i, _dense(_local(p))) for i, p in found if p is not None]

    def before(self) -> None:
        """Read the slices."""
        torch.cat(self._views, out=self._before)

    def after(self, frame: Frame) -> Moved:
        """Read them again and reduce what has changed."""
        torch.cat(self._views, out=self._after)
        self._after.sub_(self._before)
        norms, moved = self._reduced(frame)
        return Moved(self.indices, self.weights, moved, norms)

    def _reduced(self, frame: Frame) -> tuple[Numbers, Numbers]:
        """L2 norms of the slices before the step, and of their changes."""
        if self._numbers is not None:
            with np.errstate(all="ignore"):
                squares = np.add.reduceat(np.square(self._numbers), self._starts, axis=1)
                both = np.sqrt(squares)
            return both[0], both[1]
        if self._rows is not None:
            wide = torch.float64 if self._rows.dtype == torch.float64 else torch.float32
            together = torch.linalg.vector_norm(self._rows, dim=2, dtype=wide)
        else:
            together = _torch.norms(self._parts).view(2, -1)
        return frame.defer(together[0]), frame.defer(together[1])


def slices_of(members: Iterable[tuple[int, torch.nn.Parameter]], most: int) -> list[Slices]:
    """Slices of at most ``most`` elements each; parameters without plain memory are left out."""
    usable = [(i, p) for i, p in members if _is_readable(p)]
    length = min(most, max(_FEWEST, _TOTAL // max(len(usable), 1)))
    length -= length % RUN if length > RUN else 0
    groups: dict[tuple[torch.device, torch.dtype, bool], list[tuple[int, torch.nn.Parameter]]] = {}
    for index, parameter in usable:
        local = _local(parameter)
        large = _dense(local).numel() > length
        groups.setdefault((local.device, local.dtype, large), []).append((index, parameter))
    return [Slices(group, length if large else None) for (_, _, large), group in groups.items()]


def view(tensor: torch.Tensor, length: int | None) -> torch.Tensor:
    """A view of ``length`` elements in scattered runs (runs, run), or of all in one dimension."""
    dense = _dense(tensor)
    if length is None:
        return dense
    run = min(RUN, length)
    runs = length // run
    stride = (dense.numel() - run) // max(runs - 1, 1)
    if stride >= 7 * run:
        lines = stride // run
        # A stride that shares no small factor with the matrix's width does not walk down the same columns.
        while any(lines % p == 0 for p in (2, 3, 5)):
            lines -= 1
        stride = lines * run
    return dense.as_strided((runs, run), (stride, 1), dense.storage_offset())


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """All elements in one dimension, in memory order; complex ones as pairs."""
    local = tensor.detach()
    if local.is_complex():
        local = torch.view_as_real(local)
    order = sorted(range(local.dim()), key=local.stride, reverse=True)
    return local.permute(order).view(-1)


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _address(parameter: torch.Tensor) -> int:
    return _local(parameter).data_ptr() if type(parameter) is not torch.nn.Parameter else parameter.data_ptr()


def _is_readable(parameter: torch.nn.Parameter) -> bool:
    """Whether the parameter is one dense block of real or complex numbers in memory."""
    if isinstance(parameter, torch.nn.parameter.UninitializedParameter) or parameter.is_meta:
        return False
    local = _local(parameter).detach()
    if local.layout is not torch.strided or local.is_quantized or local.is_nested or not local.numel():
        return False
    if not (local.is_floating_point() or local.is_complex()) or not _torch.has_values(local):
        return False
    if local.untyped_storage().nbytes() < local.numel() * local.element_size():
        return False  # its host has freed it for now
    order = sorted(range(local.dim()), key=local.stride, reverse=True)
    return local.permute(order).is_contiguous()
