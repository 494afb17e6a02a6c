"""device-memory-pressure: the GPU's memory is almost full."""

import pytest

from tests.checks.machines import gpu, machine, on
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "device-memory-pressure"
GB = 1_000_000_000


def run(share, seconds=30, header=None, interval=None, **fields):
    def reading(second):
        used = share(second) if callable(share) else share
        card = gpu(memory_used_bytes=int(used * 80 * GB), memory_total_bytes=80 * GB)
        return {"gpus": [card, gpu(1, memory_used_bytes=GB, memory_total_bytes=80 * GB)]} | fields

    return machine(seconds, reading, header, intervals=interval or {}, interval_steps=5)


def test_warning_and_critical():
    alert = assert_fires(SLUG, run(0.93), severity="warning", since=(1, 1), by=7)
    assert alert.title == "GPU 0 is 93% full"
    assert_fires(SLUG, run(0.98), severity="critical")
    assert_fires(SLUG, run(lambda s: 0.95 if s < 15 else 0.98), severity="critical")


def test_retries_of_the_allocator_are_told():
    alert = assert_fires(SLUG, run(lambda s: 0.5 if s < 15 else 0.95, interval={"alloc_retries": 4}))
    assert "free its cache 8 times" in alert.detail


@pytest.mark.parametrize("share", [0.9, lambda s: 0.99 if s % 4 == 0 else 0.8], ids=["below", "for a moment"])
def test_near_misses(share):
    assert_quiet(SLUG, run(share))


def test_near_miss_the_allocator_keeps_a_cache():
    cached = run(0.98, cuda_reserved_bytes=75 * GB, cuda_peak_bytes=40 * GB, cuda_allocated_bytes=10 * GB)
    assert_quiet(SLUG, cached)
    assert_fires(SLUG, cached, severity="critical", limits={"cache": 0})
    assert_fires(SLUG, run(0.98, cuda_reserved_bytes=75 * GB, cuda_peak_bytes=74 * GB), severity="warning")


def test_another_processs_card_does_not_count():
    assert_quiet(SLUG, run(0.98, header=on("cuda:1")))
    assert_quiet(SLUG, run(0.98, header=on("cpu")), ready=False)


def test_limits():
    assert_quiet(SLUG, run(0.93), limits={"warning": 0.95})
    assert_fires(SLUG, run(0.93), severity="critical", limits={"critical": 0.93})
    assert_fires(SLUG, run(lambda s: 0.99 if s % 4 == 0 else 0.8), limits={"seconds": 0})
