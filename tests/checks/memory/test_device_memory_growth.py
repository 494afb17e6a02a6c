"""device-memory-growth: GPU memory grows from interval to interval."""

import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from torchwatch.records import System

SLUG = "device-memory-growth"
MB = 1_000_000


def run(mb, intervals=16, peak=None, extra=None):
    """Intervals of 20 steps with this memory at their end, index from 1."""
    fields = {
        "cuda_allocated_bytes": lambda i: int(mb(i) * MB),
        "cuda_peak_bytes": lambda i: int(
            (peak or (lambda j: max(mb(k) for k in range(1, j + 1)) + 500))(i) * MB
        ),
    }
    return records(steps=20 * intervals, interval_steps=20, intervals=fields, extra=extra)


def test_a_leak_is_found_after_five_rises():
    alert = assert_fires(SLUG, run(lambda i: 1000 + 50 * i), severity="warning", since=(81, 81), by=180)
    assert "2.5 MB per step" in alert.detail


def test_a_leak_that_begins_later_is_dated_there():
    assert_fires(SLUG, run(lambda i: 1000 + 50 * max(0, i - 8)), since=(161, 161))


def test_quiet_on_constant_memory():
    assert_quiet(SLUG, run(lambda i: 1000.0))


def test_near_miss_read_in_the_middle_of_steps():
    """The recorder reads at any moment of a step; without a leak the peak stands still."""
    for seed in range(5):
        noise = np.random.default_rng(seed).uniform(0, 2000, 400)
        assert_quiet(SLUG, run(lambda i, n=noise: 1000 + n[i], intervals=100, peak=lambda i: 3100))


def test_readings_within_an_interval_find_the_end_of_a_step():
    """A leak under activations that come and go: the lowest reading of each interval rises."""
    noise = np.random.default_rng(1).uniform(0, 2000, 400)
    extra = {
        s: [System(time_s=s, step=s, cuda_allocated_bytes=int((1000 + 3 * s) * MB))]
        for s in range(5, 320, 10)
    }
    assert_fires(SLUG, run(lambda i: 1000 + 60 * i + noise[i], peak=lambda i: 3100 + i, extra=extra))


def test_near_miss_four_rises_and_a_fall():
    assert_quiet(SLUG, run(lambda i: 1000 + 100 * (i % 5), intervals=40, peak=lambda i: 2000 + i))


def test_near_miss_little():
    assert_quiet(SLUG, run(lambda i: 10_000 + 40 * i))
    assert_quiet(SLUG, run(lambda i: 100 + 5 * i, intervals=12))
    assert_fires(SLUG, run(lambda i: 100 + 5 * i, intervals=12), limits={"least_mb": 0})


def test_near_miss_it_settles_in_the_first_intervals():
    settling = run(lambda i: 1000 + 200 * min(i, 8), intervals=20)
    assert_quiet(SLUG, settling)
    assert_fires(SLUG, settling, limits={"warm_up_intervals": 0})


def test_near_miss_the_peak_stands():
    grown = run(lambda i: 1000 + 50 * i, peak=lambda i: 4000)
    assert_quiet(SLUG, grown)
    assert_fires(SLUG, grown, limits={"peak": 0})


def test_limits_and_length():
    assert_quiet(SLUG, run(lambda i: 1000 + 50 * i), limits={"growth": 2.0})
    assert_quiet(SLUG, run(lambda i: 1000 + 50 * i, intervals=8), ready=False)
    _, alerts = run_check(SLUG, run(lambda i: 1000 + 50 * i, intervals=60), limits={"intervals": 31})
    assert alerts
