"""Memory and CPU share of this process."""

from __future__ import annotations

from typing import Any

import psutil

from torchwatch.intervals import tidy


class Memory:
    """Resident and CUDA memory, and CPU share, of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()

    def read(self) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.System`. Of CUDA only the allocator's own counters."""
        fields: dict[str, Any] = {
            "rss_bytes": self._process.memory_info().rss,
            "cpu_percent": tidy(self._process.cpu_percent()),
        }
        import torch

        if torch.cuda.is_available() and torch.cuda.is_initialized():
            devices = range(torch.cuda.device_count())
            fields["cuda_allocated_bytes"] = sum(torch.cuda.memory_allocated(d) for d in devices)
            fields["cuda_reserved_bytes"] = sum(torch.cuda.memory_reserved(d) for d in devices)
        return fields
