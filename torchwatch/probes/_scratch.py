"""Memory of ours on the CPU that is used again and again: fresh pages cost more than the arithmetic."""

from __future__ import annotations

import torch

PIECE = 65536
"""Entries of a buffer: three such float32 buffers fit into a second-level cache of 1 MB."""


class Buffers:
    """``wide`` for entries in this precision, ``work`` for what is made of them, ``ones`` to add them up."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.make_room(PIECE)

    def make_room(self, size: int) -> None:
        """Make them this long."""
        self.size = size
        with torch.inference_mode(mode=False):  # else they could not be written outside of it later
            self.wide = torch.empty(size, dtype=self.dtype, device="cpu")
            self.work = torch.empty(size, dtype=self.dtype, device="cpu")
            self.ones = torch.ones(size, dtype=self.dtype, device="cpu")


class Scratch:
    """Buffers that are not in use, about 1 MB per thread that is at work at the same time."""

    def __init__(self) -> None:
        self._free: dict[torch.dtype, list[Buffers]] = {torch.float32: [], torch.float64: []}

    def take(self, dtype: torch.dtype) -> Buffers:
        """Buffers for tensors of a type: float64 for float64, else float32."""
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        try:
            return self._free[wide].pop()
        except IndexError:
            return Buffers(wide)

    def give(self, buffers: Buffers) -> None:
        """They are no longer in use."""
        self._free[buffers.dtype].append(buffers)
