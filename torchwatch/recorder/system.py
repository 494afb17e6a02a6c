"""What the machine does: processors, disks, network."""

from __future__ import annotations

from typing import Any

import psutil

from torchwatch.intervals import tidy


class Machine:
    """Load of the machine and of this process since the reading before.

    Args:
        source: psutil, or something like it.
    """

    def __init__(self, source: Any = psutil) -> None:
        self._source = source
        self._process = source.Process()
        self._process.cpu_percent()  # the share is counted from here
        self._times = source.cpu_times()
        self._counts = self._counters()

    def read(self) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.System`."""
        counts, before = self._counters(), self._counts
        self._counts = counts
        deltas = {k: n - before[k] for k, n in counts.items() if k in before}
        return {
            "cpu_percent": tidy(self._process.cpu_percent()),
            "machine_cpu_percent": self._busy_percent(),
            **{k: n for k, n in deltas.items() if n >= 0},  # a device that came or went
        }

    def _busy_percent(self) -> float | None:
        """Of all cores together; psutil's own function may share its memory with the host's calls of it."""
        now, before = self._source.cpu_times(), self._times
        self._times = now
        total = _total_s(now) - _total_s(before)
        busy = busy_s(now) - busy_s(before)
        return round(min(max(100 * busy / total, 0.0), 100.0), 2) if total > 0 else None

    def _counters(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        try:
            disk = self._source.disk_io_counters(nowrap=False)
            if disk is not None:
                counts |= {"disk_read_bytes": disk.read_bytes, "disk_write_bytes": disk.write_bytes}
        except (OSError, RuntimeError, ValueError):  # a container, or a kernel that psutil does not know
            pass
        try:
            net = self._source.net_io_counters(nowrap=False)
            if net is not None:
                counts |= {"net_sent_bytes": net.bytes_sent, "net_received_bytes": net.bytes_recv}
        except (OSError, RuntimeError, ValueError):
            pass
        return counts


def busy_s(times: Any) -> float:
    """Seconds in which processors worked, all together; ``times`` as ``psutil.cpu_times`` gives them."""
    return _total_s(times) - float(times.idle) - float(getattr(times, "iowait", 0.0))


def _total_s(times: Any) -> float:
    """All seconds; on Linux the guests' are in the user's already."""
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times)) - float(guests)
