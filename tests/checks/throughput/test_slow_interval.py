"""slow-interval: one interval took much longer than the others."""

import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "slow-interval"


def run(step_s, intervals=10, samples=lambda i: 64, size=50, wait_share=None, **more):
    """Intervals of 50 steps of ``step_s(index)`` seconds, index from 1."""
    fields = {
        "busy_s": lambda i: size * step_s(i),
        "samples": lambda i: None if samples is None else size * samples(i),
        "wait_share": wait_share,
    }
    return records(steps=size * intervals, interval_steps=size, intervals=fields, **more)


def slow(at, factor=2.0, base=0.1):
    return lambda i: base * (factor if i == at else 1.0)


def test_fires_on_the_slow_one_and_resolves_after_it():
    _, alerts = run_check(SLUG, run(slow(8)))
    assert [(a.state, a.severity, a.step) for a in alerts] == [
        ("opened", "info", 400),
        ("resolved", "info", 450),
    ]
    assert alerts[0].since_step == 351
    assert alerts[0].title == "Steps 351 to 400 took 2.0 times the usual time"


def test_it_says_what_part_was_waiting():
    alert = assert_fires(SLUG, run(slow(8), wait_share=lambda i: 0.6 if i == 8 else 0.1))
    assert "60% of it was waiting for data, 10% usually" in alert.detail
    unknown = run(slow(8), wait_share=lambda i: None if i == 8 else 0.1)
    assert "waiting" not in assert_fires(SLUG, unknown).detail


def test_steps_stand_in_for_samples():
    assert "per step" in assert_fires(SLUG, run(slow(8), samples=None), since=(351, 351)).detail
    assert "per sample" in assert_fires(SLUG, run(slow(8))).detail


def test_quiet():
    assert_quiet(SLUG, run(lambda i: 0.1))


@pytest.mark.parametrize(
    "body",
    [run(slow(8, factor=1.45)), run(slow(8, base=0.01)), run(slow(5))],
    ids=["not slow enough", "half a second", "three before it"],
)
def test_near_misses(body):
    assert_quiet(SLUG, body)


def test_near_miss_a_larger_batch():
    """Twice the samples in twice the time."""
    larger = run(slow(8), samples=lambda i: 128 if i == 8 else 64)
    assert_quiet(SLUG, larger)
    smaller = run(lambda i: 0.1, samples=lambda i: 32 if i >= 8 else 64)
    assert_quiet(SLUG, smaller)
    assert_fires(SLUG, smaller, limits={"batch_change": 0})


def test_near_miss_the_first_intervals_are_not_compared():
    """The first includes the start; a run of four slow ones has no usual time yet."""
    assert_quiet(SLUG, run(slow(1, factor=5.0)))
    assert_quiet(SLUG, run(lambda i: 0.1, intervals=4), ready=False)


def test_near_miss_a_remainder_of_few_steps():
    assert_quiet(SLUG, run(slow(8), size=4), ready=False)
    assert_fires(SLUG, run(slow(8, base=1.0), size=4), limits={"least_steps": 0})
    remainders = run(lambda i: 0.1, intervals=9, samples=None, epoch_steps=203)  # 3 steps in the time of 50
    assert_quiet(SLUG, remainders)
    assert_fires(SLUG, remainders, limits={"least_steps": 0})


def test_limits():
    assert_fires(SLUG, run(slow(8, factor=1.45)), limits={"factor": 1.2})
    assert_fires(SLUG, run(slow(8, base=0.01)), limits={"least_s": 0})
    assert_quiet(SLUG, run(slow(8)), limits={"intervals": 8}, ready=False)
    assert_fires(SLUG, run(slow(5)), limits={"warm_up_steps": 0})
