"""Load of the machine between two readings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil

from torchwatch.recorder.system import Machine, busy_s


class Times(NamedTuple):
    """As on Linux."""

    user: float
    system: float
    idle: float
    iowait: float
    guest: float
    guest_nice: float


class Source:
    """Something like psutil, whose counters the test sets."""

    def __init__(self) -> None:
        self.times = Times(10.0, 5.0, 80.0, 5.0, 2.0, 0.0)
        self.disk: Any = SimpleNamespace(read_bytes=1_000, write_bytes=2_000)
        self.net: Any = SimpleNamespace(bytes_sent=30, bytes_recv=40)
        self.share = 0.0

    def Process(self) -> Source:
        return self

    def cpu_percent(self) -> float:
        return self.share

    def cpu_times(self) -> Times:
        return self.times

    def disk_io_counters(self, nowrap: bool) -> Any:
        if isinstance(self.disk, Exception):
            raise self.disk
        return self.disk

    def net_io_counters(self, nowrap: bool) -> Any:
        return self.net


def test_the_load_since_the_reading_before() -> None:
    source = Source()
    machine = Machine(source)
    source.times = Times(12.0, 6.0, 88.0, 6.0, 3.0, 0.0)  # a guest's second is in the user's
    source.disk = SimpleNamespace(read_bytes=1_500, write_bytes=2_000)
    source.net = SimpleNamespace(bytes_sent=130, bytes_recv=1_040)
    source.share = 150.0
    assert machine.read() == {
        "cpu_percent": 150.0,
        "machine_cpu_percent": 25.0,
        "disk_read_bytes": 500,
        "disk_write_bytes": 0,
        "net_sent_bytes": 100,
        "net_received_bytes": 1_000,
    }
    source.times = Times(14.0, 6.0, 90.0, 6.0, 3.0, 0.0)
    assert machine.read()["machine_cpu_percent"] == 50.0
    assert machine.read()["machine_cpu_percent"] is None  # no time has passed


def test_counters_that_are_not_there_or_run_backwards_are_missing() -> None:
    source = Source()
    source.disk = RuntimeError("not sure how to interpret this line")
    machine = Machine(source)
    source.net = SimpleNamespace(bytes_sent=10, bytes_recv=50)
    reading = machine.read()
    assert "disk_read_bytes" not in reading
    assert "net_sent_bytes" not in reading
    assert reading["net_received_bytes"] == 10
    source.net = None
    assert "net_received_bytes" not in machine.read()


def test_the_real_machine() -> None:
    reading = Machine().read()
    assert reading["cpu_percent"] >= 0
    assert busy_s(psutil.cpu_times()) > 0
