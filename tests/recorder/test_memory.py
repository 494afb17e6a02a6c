"""Memory of the process: what is read when, and what CUDA's books say."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from torchwatch.recorder.memory import USS_S, Memory


class Process:
    """A process whose numbers the test sets."""

    def __init__(self) -> None:
        self.rss, self.uss, self.reads = 100, 60, 0
        self.error: Exception | None = None

    def memory_info(self) -> SimpleNamespace:
        self.reads += 1
        return SimpleNamespace(rss=self.rss)

    def memory_full_info(self) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(uss=self.uss)


@pytest.fixture
def process(monkeypatch) -> Process:
    fake = Process()
    monkeypatch.setattr(psutil, "Process", lambda: fake)
    return fake


def test_readings_are_kept_for_a_moment(process) -> None:
    memory = Memory()
    assert memory.read(0.0)["rss_bytes"] == 100
    process.rss = 200
    assert memory.read(0.1)["rss_bytes"] == 100
    assert memory.read(0.3)["rss_bytes"] == 200
    assert process.reads == 2


def test_unique_memory_is_read_seldom_and_the_less_the_dearer_it_is(process) -> None:
    ticks = iter([0.0, 0.001, 5.0, 5.030, 9.0, 9.0])
    memory = Memory(timer=lambda: next(ticks))
    assert memory.read(0.0)["uss_bytes"] is None
    assert memory.read_unique(1.0)
    assert memory.read(1.0)["uss_bytes"] == 60
    process.uss = 70
    assert not memory.read_unique(1.0 + USS_S - 0.1)
    assert memory.read_unique(1.0 + USS_S)  # this one takes 30 ms
    assert not memory.read_unique(1.0 + USS_S + 29)
    assert memory.read_unique(1.0 + USS_S + 30.1)
    assert memory.read(50.0)["uss_bytes"] == 70


def test_unique_memory_that_may_not_be_read_is_missing(process) -> None:
    process.error = psutil.AccessDenied()
    memory = Memory()
    assert not memory.read_unique(1.0)
    process.error = None
    assert not memory.read_unique(1000.0)
    assert memory.read(0.0)["uss_bytes"] is None


def books(allocated: int, reserved: int, peak: int, retries: int) -> dict:
    return {
        "allocated_bytes": {"all": {"current": allocated, "peak": peak}},
        "reserved_bytes": {"all": {"current": reserved}},
        "num_alloc_retries": retries,
    }


def with_cuda(monkeypatch, *devices) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda.memory, "memory_stats_as_nested_dict", lambda device: devices[device])


def test_cuda_memory_is_summed_over_devices_and_those_in_use_are_known(process, monkeypatch) -> None:
    with_cuda(monkeypatch, books(10, 20, 15, 1), books(0, 0, 0, 0), books(5, 6, 7, 2))
    memory = Memory()
    fields = memory.read(0.0)
    assert fields["cuda_allocated_bytes"] == 15
    assert fields["cuda_reserved_bytes"] == 26
    assert fields["cuda_peak_bytes"] == 22
    assert memory.devices == {0, 2}
    assert memory.retries == 3


def test_an_allocator_without_books_is_missing(process, monkeypatch) -> None:
    with_cuda(monkeypatch, {})
    memory = Memory()
    assert set(memory.read(0.0)) == {"rss_bytes", "uss_bytes"}
    assert memory.retries is None


def test_without_cuda_nothing_of_it_is_asked(process) -> None:
    memory = Memory()
    assert not any(name.startswith(("cuda", "mps")) for name in memory.read(0.0))
    assert memory.devices == set()


def test_the_real_process() -> None:
    memory = Memory()
    assert memory.read_unique(0.0)
    fields = memory.read(0.0)
    assert 0 < fields["uss_bytes"] <= fields["rss_bytes"]
