"""input-bound: training waits for data."""

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "input-bound"


def run(wait, work=0.02, steps=400, interval_steps=50, **more):
    """Step time includes the wait, as the recorder writes it."""
    waits = [wait(i) if callable(wait) else wait for i in range(1, steps + 1)]
    times = [w + (work(i) if callable(work) else work) for i, w in enumerate(waits, 1)]
    return records(steps=steps, wait_time_s=waits, step_time_s=times, interval_steps=interval_steps, **more)


def test_warning_from_a_fifth():
    alert = assert_fires(SLUG, run(0.02), severity="warning", layer=None, by=150)
    assert alert.value == pytest.approx(0.5)
    assert "20 ms per step" in alert.detail


def test_onset_in_mid_run():
    assert_fires(
        SLUG, run(lambda i: 0.02 if i > 200 else 0.0005), severity="warning", since=(201, 201), by=300
    )


def test_short_epochs_are_joined_to_stretches():
    assert_fires(SLUG, run(0.05, steps=120, epoch_steps=12), severity="warning", by=72)


def test_a_burst_of_waiting_every_fourth_step_is_found():
    assert_fires(SLUG, run(lambda i: 0.08 if i % 4 == 0 else 0.0), severity="warning")


def test_info_between_a_tenth_and_a_fifth():
    assert_quiet(SLUG, run(0.006, work=0.034), allow_info=True)
    assert_fires(SLUG, run(0.006, work=0.034), severity="info")
    assert_quiet(SLUG, run(0.006, work=0.06))


@pytest.mark.parametrize(("wait", "work"), [(0.0004, 0.0006), (0.0012, 0.003), (0.003, 0.004)])
def test_near_miss_small_batches_in_memory(wait, work):
    random = np.random.default_rng(0)
    noise = np.exp(random.normal(0, 0.5, 3001))
    noise[random.integers(0, 3001, 20)] *= 30  # a busy machine
    assert_quiet(
        SLUG, run(lambda i: wait * noise[i], work=lambda i: work * noise[-i], steps=3000), allow_info=True
    )


def test_near_miss_the_loader_starts_up_once():
    assert_quiet(SLUG, run(lambda i: 30.0 if i == 1 else 0.0005))
    assert_fires(
        SLUG, run(lambda i: 30.0 if i == 1 else 0.0005), limits={"startup": 0, "stretches": 1}, by=50
    )


def test_near_miss_every_epoch_starts_slowly_is_an_info():
    slow = run(lambda i: 2.0 if i % 50 == 1 else 0.001, epoch_steps=50)
    assert_quiet(SLUG, slow, allow_info=True)
    assert "persistent_workers" in assert_fires(SLUG, slow, severity="info").detail


def test_near_miss_several_slow_starts_in_a_stretch():
    assert_quiet(SLUG, run(lambda i: 2.0 if i % 10 == 1 else 0.001, epoch_steps=10), allow_info=True)


def test_near_miss_one_slow_stretch():
    assert_quiet(SLUG, run(lambda i: 0.1 if 100 < i <= 150 else 0.0001))
    assert_fires(SLUG, run(lambda i: 0.1 if 100 < i <= 150 else 0.0001), limits={"stretches": 1}, by=150)


def test_guards_off_leave_the_bare_share():
    tiny = run(0.0004, work=0.0006)
    assert_quiet(SLUG, tiny)
    assert_quiet(SLUG, tiny, limits={"total_wait_s": 0})
    assert_quiet(SLUG, tiny, limits={"warning_wait_s": 0, "info_wait_s": 0})
    assert_fires(SLUG, tiny, limits={"total_wait_s": 0, "warning_wait_s": 0}, severity="warning")


def test_limits():
    assert_quiet(SLUG, run(0.02), limits={"warning": 0.6}, allow_info=True)
    assert_quiet(SLUG, run(0.02), limits={"warning": 0.6, "info": 0.6})
    assert_quiet(SLUG, run(0.02), limits={"steps": 300}, ready=False)


def test_not_run_without_waiting_times():
    engine, _ = run_check(SLUG, records(steps=300))
    assert "`wait_time_s`" in engine.not_run()[SLUG]
