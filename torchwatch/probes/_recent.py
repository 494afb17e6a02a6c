"""Units of tensors that were looked at a moment ago: a layer often reads what the one before put out."""

from __future__ import annotations

import weakref

import torch

from torchwatch.probes._moments import Units

_MOST = 8


class RecentUnits:
    """The units of the last few tensors, by identity; tensors are held weakly and known as long as unchanged.

    A tensor that was written in place since is another one. Those of inference mode, whose changes torch does
    not count, are never known.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[torch.Tensor], int, int, Units]] = {}

    def add(self, tensor: torch.Tensor, axis: int, units: Units) -> None:
        """Remember the units on an axis of a tensor; the oldest are forgotten."""
        if tensor.is_inference():
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[id(tensor)] = (weakref.ref(tensor), tensor._version, axis, units)

    def get(self, tensor: torch.Tensor, axis: int) -> Units | None:
        """The units, if they are known."""
        known = self._known.get(id(tensor))
        if known is None:
            return None
        reference, version, on_axis, units = known
        return units if reference() is tensor and tensor._version == version and on_axis == axis else None

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
