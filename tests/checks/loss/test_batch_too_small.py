import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.records import System

SLUG = "batch-too-small"
FALL = 0.3 + 2 * np.exp(-np.arange(600) / 100)


def run(ratio=0.4, busy=40.0, other=5.0, level=FALL, **options):
    rng = np.random.default_rng(0)
    loss = level * np.maximum(0.01, 1 + ratio * rng.standard_normal(level.size))
    gpus = [{"index": 0, "utilization_percent": other}, {"index": 1, "utilization_percent": busy}]
    extra = {s: [System(time_s=s / 10, step=s, gpus=gpus)] for s in range(10, 600, 10)}
    return records(loss, samples=4, **{"extra": extra} | options)


def test_noise_and_room_are_a_note():
    alert = assert_fires(SLUG, run(), severity="info")
    assert "40 % busy" in alert.title
    assert "4 samples" in alert.detail


def test_near_miss_below_half_the_noise():
    assert_quiet(SLUG, run(ratio=0.15))
    assert_fires(SLUG, run(ratio=0.15), limits={"ratio": 0.1})


@pytest.mark.parametrize(("busy", "other"), [(75.0, 5.0), (10.0, 90.0)])
def test_near_miss_one_gpu_is_busy(busy, other):
    assert_quiet(SLUG, run(busy=busy, other=other))
    assert_fires(SLUG, run(busy=busy, other=other), limits={"utilization": 95})


def test_near_miss_too_few_readings():
    extra = {s: [System(step=s, gpus=[{"utilization_percent": 10.0}])] for s in (100, 200, 300, 400)}
    assert_quiet(SLUG, run(extra=extra), ready=False)
    assert_fires(SLUG, run(extra=extra), limits={"readings": 4})


def test_near_miss_readings_of_warm_up_do_not_count():
    extra = {s: [System(step=s, gpus=[{"utilization_percent": 10.0}])] for s in range(1, 20)}
    assert_quiet(SLUG, run(extra=extra), ready=False)
    assert_fires(SLUG, run(extra=extra), limits={"warm_up": 0})


def test_near_miss_close_to_zero_the_first_level_counts():
    low = np.concatenate([FALL[:50], np.full(550, 0.01)])
    assert_quiet(SLUG, run(level=low))
    assert_fires(SLUG, run(level=low), limits={"first_floor": 0})


def test_most_readings_are_honoured():
    extra = {
        s: [System(step=s, gpus=[{"utilization_percent": 10.0 if s < 400 else 95.0}])]
        for s in range(10, 600, 10)
    }
    late = run(extra=extra, ratio=0.4, level=np.concatenate([np.full(500, 1.0), FALL[:100]]))
    assert_fires(SLUG, late, by=450)
    assert_fires(SLUG, late, limits={"most_readings": 200})


def test_never_for_a_loss_that_can_be_negative():
    assert_quiet(SLUG, run(level=-FALL))


def test_not_run_without_a_gpu():
    engine = assert_quiet(SLUG, run(extra={}), ready=False)
    assert engine.not_run() == {SLUG: "no `gpus`"}
    nameless = run(extra={s: [System(step=s, gpus=[{"index": 0}])] for s in range(10, 600, 10)})
    assert "needs 5 readings" in assert_quiet(SLUG, nameless, ready=False).not_run()[SLUG]
