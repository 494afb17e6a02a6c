"""From the device to the host without waiting: one packed copy per step into a ring of pinned buffers.

The training thread packs, copies and records an event; the recorder polls the event, reads the buffer and
gives it back. When all buffers are under way the step's values are dropped and counted: the training never
waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

SLOTS = 64
VALUES = 4096

Values = npt.NDArray[np.float64]


class Event(Protocol):
    """What of ``torch.cuda.Event`` is used."""

    def record(self) -> None:
        """Mark this point of the current stream."""

    def query(self) -> bool:
        """Whether the device has passed it."""

    def synchronize(self) -> None:
        """Wait until it has."""


class _Slot:
    """A pinned buffer of float64, and the event after which it holds its values."""

    __slots__ = ("buffer", "event")

    def __init__(self, buffer: torch.Tensor, event: Event) -> None:
        self.buffer, self.event = buffer, event


class Ring:
    """Pinned buffers of one device.

    Args:
        allocate: makes a pinned float64 buffer of a number of values.
        event: makes an event of the device.
        slots: copies that may be under way at a time (default 64).
    """

    def __init__(
        self, allocate: Callable[[int], torch.Tensor], event: Callable[[], Event], slots: int = SLOTS
    ) -> None:
        self._allocate, self._event, self._slots = allocate, event, slots
        self._free: deque[_Slot] = deque()
        self._made = 0

    def take(self, values: int) -> _Slot | None:
        """A buffer for that many values; None when all are under way."""
        if self._free:
            slot = self._free.popleft()
        elif self._made < self._slots:
            self._made += 1
            slot = _Slot(self._allocate(max(values, VALUES)), self._event())
        else:
            return None
        if slot.buffer.numel() < values:
            slot.buffer = self._allocate(2 * values)
        return slot

    def give_back(self, slot: _Slot) -> None:
        """The values have been read. Recorder thread."""
        self._free.append(slot)


class Copy:
    """Tensors of one device on their way to the host."""

    def __init__(self, ring: Ring, slot: _Slot, sizes: list[int]) -> None:
        self._ring, self._slot, self._sizes = ring, slot, sizes
        self._values: list[Values] | None = None

    def ready(self) -> bool:
        """Whether the values can be read without waiting."""
        return self._values is not None or self._slot.event.query()

    def finish(self) -> None:
        """Wait for them; only when the run is over."""
        if self._values is None:
            self._slot.event.synchronize()

    def values(self) -> list[Values]:
        """The tensors as flat arrays, in order. The buffer goes back to the ring."""
        if self._values is None:
            ends = np.cumsum(self._sizes)
            whole = self._slot.buffer[: int(ends[-1])].numpy().copy()
            self._values = np.split(whole, ends[:-1])
            self._ring.give_back(self._slot)
        return self._values


class Transfers:
    """The rings of all devices of one watcher.

    Attributes:
        dropped: steps whose values were dropped because a ring was full.
    """

    def __init__(self, slots: int = SLOTS, ring: Callable[[torch.device, int], Ring] | None = None) -> None:
        self._slots, self._ring = slots, ring if ring is not None else _cuda_ring
        self._rings: dict[torch.device, Ring] = {}
        self.dropped = 0

    def start(self, device: torch.device, tensors: Sequence[torch.Tensor]) -> Copy | None:
        """Copy tensors of a device; None when its ring is full. Never waits."""
        ring = self._rings.get(device)
        if ring is None:
            ring = self._rings[device] = self._ring(device, self._slots)
        sizes = [t.numel() for t in tensors]
        slot = ring.take(sum(sizes))
        if slot is None:
            self.dropped += 1
            return None
        _pack(tensors, sizes, slot.buffer)
        slot.event.record()
        return Copy(ring, slot, sizes)


def _cuda_ring(device: torch.device, slots: int) -> Ring:
    def event() -> Any:
        with torch.cuda.device(device):
            return torch.cuda.Event()

    return Ring(lambda n: torch.empty(n, dtype=torch.float64, pin_memory=True), event, slots)


def _pack(tensors: Sequence[torch.Tensor], sizes: list[int], buffer: torch.Tensor) -> None:
    """One ``cat`` for neighbours of the same dtype, one copy for all: a kernel per tensor would be dearer."""
    runs: list[torch.Tensor] = []
    start = 0
    for at in range(1, len(tensors) + 1):
        if at == len(tensors) or tensors[at].dtype is not tensors[start].dtype:
            run = torch.cat([t.detach().reshape(-1) for t in tensors[start:at]])
            runs.append(run.to(torch.float64))
            start = at
    packed = runs[0] if len(runs) == 1 else torch.cat(runs)
    buffer[: sum(sizes)].copy_(packed, non_blocking=True)
