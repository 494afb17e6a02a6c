"""memory-growth: resident memory keeps growing."""

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from torchwatch.records import System

SLUG = "memory-growth"
MB = 1_000_000


def run(rss_mb, intervals=12, epochs=True, **more):
    """Intervals of 21 steps with this memory at their end, index from 1; each is an epoch."""
    fields = {"rss_bytes": lambda i: int(rss_mb(i) * MB)}
    return records(
        steps=21 * intervals, interval_steps=21, epoch_steps=21 if epochs else None, intervals=fields, **more
    )


@pytest.mark.parametrize("per_step", [5, 10])
def test_a_leak_is_found_within_a_short_run_and_dated_to_its_start(per_step):
    alert = assert_fires(
        SLUG, run(lambda i: 500 + per_step * 21 * i), severity="warning", layer=None, since=(1, 1), by=210
    )
    assert f"{per_step}.0 MB per step" in alert.detail


def test_a_leak_that_begins_later_is_dated_there():
    leak = run(lambda i: 500 + 200 * max(0, i - 10), intervals=40)
    assert_fires(SLUG, leak, severity="warning", since=(190, 232))


def test_a_leak_is_found_three_intervals_after_it_began_where_memory_is_read_every_second():
    extra = {s: [System(time_s=s / 10, step=s, rss_bytes=(500 + 5 * s) * MB)] for s in range(10, 253, 10)}
    assert_fires(SLUG, run(lambda i: 500 + 105 * i, extra=extra), severity="warning", since=(1, 1), by=84)


def test_a_leak_that_begins_later_is_found_within_six_intervals():
    assert_fires(SLUG, run(lambda i: 500 + 100 * max(0, i - 20), intervals=40), severity="warning", by=546)


def test_near_miss_what_an_epoch_collects_is_given_back_at_its_end():
    """Predictions that are kept until an evaluation: a tooth per epoch, read ten times within it."""
    extra = {s: [System(time_s=s / 10, step=s, rss_bytes=(500 + 40 * (s % 10)) * MB)] for s in range(1, 400)}
    fields = {"rss_bytes": lambda i: (780 if i % 2 else 500) * MB}  # 7 steps, then the 3 that are left
    teeth = records(steps=399, interval_steps=7, epoch_steps=10, intervals=fields, extra=extra)
    assert_quiet(SLUG, teeth)
    assert_fires(SLUG, teeth, limits={"returns": 0})


def test_quiet_on_flat_memory():
    assert_quiet(SLUG, run(lambda i: 500 + i % 3))


def test_near_miss_it_rises_in_the_first_intervals_and_then_stays():
    settling = run(lambda i: 500 + 100 * min(i, 3), intervals=30)
    assert_quiet(SLUG, settling)


def test_near_miss_one_step_up_that_stays():
    for at in range(4, 29):
        assert_quiet(SLUG, run(lambda i, at=at: 500 + (800 if i >= at else 0), intervals=30))


def test_near_miss_it_settles_slowly():
    assert_quiet(SLUG, run(lambda i: 1000 - 500 * np.exp(-i / 4), intervals=40))


def test_near_miss_up_and_down():
    assert_quiet(SLUG, run(lambda i: 500 + 300 * (i % 4), intervals=40))


def test_near_miss_a_quarter_or_256_mb_not_reached():
    assert_quiet(SLUG, run(lambda i: 4000 + 60 * i))
    assert_quiet(SLUG, run(lambda i: 200 + 20 * i))
    assert_fires(SLUG, run(lambda i: 200 + 20 * i), limits={"least_mb": 0})


def test_near_miss_the_middle_lies_lower():
    later = [500, 900, 900, 600, 600, 620, 620, 700, 700, 720, 750, 900]
    bumpy = run(lambda i: ([500] * 3 + later)[i - 1], intervals=15)
    assert_quiet(SLUG, bumpy, limits={"confidence": 0})
    assert_fires(SLUG, bumpy, limits={"confidence": 0, "thirds": 0})


def test_in_the_first_epoch_it_may_be_the_data():
    data = run(lambda i: 500 + 100 * i, epochs=False)
    assert_quiet(SLUG, data, allow_info=True)
    assert "first epoch" in assert_fires(SLUG, data, severity="info").detail
    assert_fires(SLUG, data, severity="warning", limits={"first_epoch": 0})


def test_near_miss_data_was_cached_in_the_first_epoch():
    fields = {"rss_bytes": lambda i: (500 + 100 * min(i, 20)) * MB}
    cached = records(steps=2000, interval_steps=25, epoch_steps=500, intervals=fields)
    assert_quiet(SLUG, cached, allow_info=True)


def test_guards_off_leave_the_bare_growth():
    step_up = run(lambda i: 500 + (200 if i >= 8 else 0))
    assert_quiet(SLUG, step_up)
    assert_fires(
        SLUG,
        step_up,
        limits={"least_mb": 0, "thirds": 0, "confidence": 0, "warm_up_intervals": 0, "first_epoch": 0},
        by=189,
    )


def test_limits():
    leak = run(lambda i: 500 + 100 * i)
    assert_quiet(SLUG, leak, limits={"growth": 3.0})
    assert_quiet(SLUG, leak, limits={"least_mb": 2000})
    assert_quiet(SLUG, leak, limits={"warm_up_intervals": 8}, ready=False)
    assert_quiet(SLUG, leak, limits={"thirds": 0.5})


def test_cheap_on_thousands_of_intervals():
    _, alerts = run_check(SLUG, run(lambda i: 500 + i % 3, intervals=400))
    assert not alerts


def test_onset_of_a_leak_that_rises_in_jumps():
    """Resident memory stands still in some intervals and jumps in others, under a steady leak from step 1."""
    leak = run(lambda i: 468 + 20 * (i // 2) + 9 * (i % 3 == 0), intervals=40)
    assert_fires(SLUG, leak, severity="warning", since=(1, 63))


def with_unique(uss_mb):
    """A leak of resident memory, of which so much is the process's own."""
    extra = {}
    for step in range(21, 253, 21):
        resident, own = int((500 + 100 * step / 21) * MB), int(uss_mb(step) * MB)
        extra[step] = [System(time_s=step, step=step, rss_bytes=resident, uss_bytes=own)]
    return run(lambda i: 500 + 100 * i, extra=extra)


def test_mapped_files_are_an_info():
    mapped = with_unique(lambda s: 400 + s / 21)
    assert_quiet(SLUG, mapped, allow_info=True)
    assert "mapped or shared" in assert_fires(SLUG, mapped, severity="info").detail
    assert_fires(SLUG, mapped, severity="warning", limits={"unique": 0})


def test_near_miss_the_processs_own_memory_grows_with_it():
    assert_fires(SLUG, with_unique(lambda s: 400 + 90 * s / 21), severity="warning")
