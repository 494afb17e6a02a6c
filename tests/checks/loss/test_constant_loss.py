import math

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "constant-loss"
LN10 = float(np.float32(math.log(10)))


def run(loss, *, fingerprint=lambda n: f"{n:08x}", update_ratio=1e-3, grad_norm=0.0, **options):
    return records(loss, fingerprint=fingerprint, update_ratio=update_ratio, grad_norm=grad_norm, **options)


def falling(n, floor=0.5):
    rng = np.random.default_rng(0)
    return (floor + 2 * np.exp(-np.arange(n) / 20)) * (1 + 0.05 * rng.standard_normal(n))


@pytest.mark.parametrize("batched", [None, 7])
def test_critical_from_the_start(batched):
    alert = assert_fires(SLUG, run([LN10] * 60, batched=batched), severity="critical", since=(1, 1), by=28)
    assert alert.value == pytest.approx(LN10, rel=1e-5)
    assert "from the start" in alert.detail


def test_a_long_constant_keeps_its_onset():
    run_ = run([3.0, 2.5, *[LN10] * 2998], batched=50)
    assert_fires(SLUG, run_, severity="critical", since=(3, 3))
    late = run([*falling(40), *[LN10] * 2960], batched=50)
    assert_fires(SLUG, late, severity="warning", since=(41, 41))


def test_a_late_constant_of_a_whole_window_is_not_from_the_start():
    late = run([*falling(2900), *[LN10] * 2300], batched=100)
    assert_fires(SLUG, late, severity="warning", since=(2901, 2901))


def test_exactly_zero_after_a_fall_is_a_note():
    run_ = run([*falling(50), *[0.0] * 50])
    assert_fires(SLUG, run_, severity="info", since=(51, 51), by=71)
    assert_quiet(SLUG, run_, allow_info=True)


def test_exactly_zero_from_the_start():
    assert_fires(SLUG, run([0.0] * 60, grad_norm=0.0, update_ratio=0.0), severity="critical")
    assert_quiet(SLUG, run([0.0] * 250, grad_norm=0.5), allow_info=True)


def test_a_constant_near_the_floor_is_a_note():
    low = run([*falling(200, 0.01), *[0.0123456] * 50])
    assert_fires(SLUG, low, severity="info")
    assert_quiet(SLUG, low, allow_info=True)
    assert_fires(SLUG, low, severity="warning", limits={"level": 0})


def test_near_miss_one_loss_differs():
    loss = [LN10] * 100
    for i in range(0, 100, 19):
        loss[i] = LN10 + 1e-6
    assert_quiet(SLUG, run(loss))
    assert_fires(SLUG, run(loss), limits={"steps": 15, "stairs": 0})


def test_near_miss_nan_is_another_check():
    assert_quiet(SLUG, run([math.nan] * 60))
    assert_quiet(SLUG, run([math.inf] * 60))


def test_near_miss_the_same_batch_all_the_time():
    same = run([LN10] * 60, fingerprint="00000001")
    assert_quiet(SLUG, same)
    assert_fires(SLUG, same, severity="critical", limits={"inputs": 0})


def test_only_noted_where_the_batches_were_not_seen():
    unseen = run([LN10] * 60, fingerprint=None)
    assert_quiet(SLUG, unseen, allow_info=True)
    assert "not seen" in assert_fires(SLUG, unseen, severity="info").detail


def test_near_miss_weights_that_stand_still():
    still = run([LN10] * 60, update_ratio=0.0, grad_norm=0.5)
    assert_quiet(SLUG, still)
    assert_fires(SLUG, still, limits={"moving": 0})
    assert_fires(SLUG, run([LN10] * 60, update_ratio=0.0, grad_norm=0.0))


@pytest.mark.parametrize("value", [2.296875, 10.8125, 0.6931, 0.69, 1.0])
def test_near_miss_a_rounded_loss_repeats_itself(value):
    rounded = run([*falling(20), *[value] * 150, *falling(100)])
    assert_quiet(SLUG, rounded)
    assert_fires(SLUG, rounded, limits={"coarse_steps": 0}, since=(21, 21))
    assert_fires(SLUG, run([value] * 250), severity="warning", since=(1, 1), by=201)


def test_near_miss_warm_up():
    warm = run([*[LN10] * 80, *falling(50)], lr=[1e-6 * n for n in range(1, 101)] + [1e-4] * 30)
    assert_quiet(SLUG, warm)
    assert_fires(SLUG, warm, limits={"warm_up": 0}, by=20)


def test_adversarial_constants_are_notes():
    assert_quiet(SLUG, run([99.9876] * 60, declare={"adversarial": True}), allow_info=True)


def test_start_is_honoured():
    loss = [*falling(10), *[LN10] * 60]
    assert_fires(SLUG, run(loss), severity="critical", since=(11, 11))
    assert_fires(SLUG, run(loss), severity="warning", limits={"start_steps": 5})


def test_weights_that_move_take_longer_and_are_a_warning():
    """The loss of such steps changes for certain: what is logged is another number."""
    stale = run([LN10] * 300, grad_norm=0.5)
    assert_fires(SLUG, stale, severity="warning", since=(1, 1), by=200)
    assert_quiet(SLUG, run([LN10] * 190, grad_norm=0.5))
    assert_fires(SLUG, run([LN10] * 190, grad_norm=0.5), limits={"coarse_steps": 0})


def test_near_miss_stairs():
    values = [2.3456789, 1.9876543, 1.7654321, 1.6543219]
    stairs = run(np.repeat(values, [15, 40, 40, 40]).tolist())
    assert_quiet(SLUG, stairs)
    assert_fires(SLUG, stairs, limits={"stairs": 0}, since=(16, 16))
    assert_fires(SLUG, run(np.repeat(values, [15, 40, 40, 200]).tolist()), since=(96, 96), by=216)


def test_near_miss_nineteen_equal_losses():
    assert_quiet(SLUG, run([*falling(30), *[LN10] * 19, *falling(30)]))
    assert_fires(SLUG, run([*falling(30), *[LN10] * 20, *falling(30)]), since=(31, 31))


def test_level_is_honoured():
    half = run([*falling(60), *[0.55123456] * 60])
    assert_fires(SLUG, half, severity="warning")
    assert_quiet(SLUG, half, allow_info=True, limits={"level": 0.5})
