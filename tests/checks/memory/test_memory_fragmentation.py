"""memory-fragmentation: the allocator holds twice what was ever in use."""

import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "memory-fragmentation"
GB = 1_000_000_000


def run(reserved, peak, allocated=1.0):
    def gb(value):
        return lambda i: int((value(i) if callable(value) else value) * GB)

    fields = {
        "cuda_reserved_bytes": gb(reserved),
        "cuda_peak_bytes": gb(peak),
        "cuda_allocated_bytes": gb(allocated),
    }
    return records(steps=200, interval_steps=20, intervals=fields)


def test_fires():
    alert = assert_fires(SLUG, run(lambda i: 12 if i >= 5 else 6, 5), severity="info", since=(81, 81))
    assert "12.0 GB" in alert.title
    assert "5.0 GB" in alert.title


def test_quiet_when_memory_of_activations_is_kept_for_the_next_step():
    assert_quiet(SLUG, run(40, 38, allocated=5))


@pytest.mark.parametrize(("reserved", "peak"), [(9.9, 5.0), (1.9, 0.5)], ids=["not twice", "little"])
def test_near_misses(reserved, peak):
    assert_quiet(SLUG, run(reserved, peak))


def test_near_miss_the_host_reset_the_peak():
    assert_quiet(SLUG, run(40, lambda i: 38 if i < 5 else 10))


def test_limits():
    assert_quiet(SLUG, run(12, 5), limits={"factor": 3.0})
    assert_fires(SLUG, run(1.9, 0.5), limits={"least_gb": 0})
