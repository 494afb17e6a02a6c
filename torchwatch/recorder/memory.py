"""Memory of this process, in the host and on accelerators."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

READ_S = 0.25
"""Readings younger than this are used again (seconds)."""

USS_S = 10.0
"""Shortest time between two readings of the unique memory (seconds) …"""

USS_SHARE = 1e-3
"""… and the largest share of time that they may take: the kernel walks all pages of the process for it."""


class Memory:
    """Resident, unique and accelerator memory of this process. Of CUDA only the allocator's own counters.

    Nothing here waits for a device.

    Args:
        timer: seconds, for the cost of a reading.

    Attributes:
        devices: indices of the CUDA devices on which this process holds memory.
        retries: how often the CUDA allocator had to free its cache and try again, since the process began;
            None without CUDA.
    """

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self._process = psutil.Process()
        self._timer = timer
        self._at_s: float | None = None
        self._fields: dict[str, Any] = {}
        self._uss: int | None = None
        self._next_uss_s: float | None = None
        self.devices: set[int] = set()
        self.retries: int | None = None

    def read(self, now: float = -1.0) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.System`; ``uss_bytes`` is the last one that was read."""
        if self._at_s is None or now < 0 or now - self._at_s >= READ_S:
            self._at_s = now
            self._fields = {"rss_bytes": self._process.memory_info().rss, **self._cuda(), **_mps()}
        return {**self._fields, "uss_bytes": self._uss}

    def read_unique(self, now: float) -> bool:
        """Read the unique memory, if it is time to; whether it was read."""
        if self._next_uss_s is not None and now < self._next_uss_s:
            return False
        started = self._timer()
        try:
            self._uss = self._process.memory_full_info().uss
        except (psutil.Error, AttributeError, OSError):  # forbidden, or the system does not tell
            self._next_uss_s = float("inf")
            return False
        self._next_uss_s = now + max(USS_S, (self._timer() - started) / USS_SHARE)
        return True

    def _cuda(self) -> dict[str, Any]:
        if not torch.cuda.is_initialized():
            return {}
        totals = dict.fromkeys(("cuda_allocated_bytes", "cuda_reserved_bytes", "cuda_peak_bytes"), 0)
        retries = 0
        for device in range(torch.cuda.device_count()):
            try:
                stats = torch.cuda.memory.memory_stats_as_nested_dict(device)
                allocated, reserved = (
                    stats["allocated_bytes"]["all"],
                    stats["reserved_bytes"]["all"]["current"],
                )
                retries += stats["num_alloc_retries"]
            except (KeyError, RuntimeError):  # an allocator of the host's own keeps no such books
                return {}
            totals["cuda_allocated_bytes"] += allocated["current"]
            totals["cuda_reserved_bytes"] += reserved
            totals["cuda_peak_bytes"] += allocated["peak"]
            if reserved:
                self.devices.add(device)
        self.retries = retries
        return totals


def _mps() -> dict[str, Any]:
    if not torch.backends.mps.is_available():
        return {}
    return {"mps_allocated_bytes": torch.mps.current_allocated_memory()}
