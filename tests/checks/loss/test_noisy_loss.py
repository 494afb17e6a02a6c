import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "noisy-loss"


def noisy(level, ratio, seed=0):
    """Losses whose scatter is about ``ratio`` of their level."""
    level = np.asarray(level, float)
    return level * np.maximum(0.01, 1 + ratio * np.random.default_rng(seed).standard_normal(level.size))


FALL = 0.3 + 2 * np.exp(-np.arange(600) / 100)


def test_noise_alone_is_a_note():
    alert = assert_fires(SLUG, records(noisy(FALL, 0.9)), severity="info")
    assert 0.5 < alert.value < 1.5
    assert_quiet(SLUG, records(noisy(FALL, 0.9)), allow_info=True)


def test_noise_without_progress_is_a_warning():
    loss = noisy(np.full(12_000, 2.0), 0.8)
    assert_fires(SLUG, records(loss, interval_steps=200, batched=100), severity="warning")


def test_near_miss_below_the_limit():
    assert_quiet(SLUG, records(noisy(FALL, 0.3)))


def test_near_miss_a_steep_trend_is_no_noise():
    saw = np.tile(np.linspace(3, 0.1, 50), 12)
    assert_quiet(SLUG, records(saw))


def test_near_miss_close_to_zero_the_first_level_counts():
    loss = np.concatenate([FALL[:100], noisy(np.full(500, 0.02), 0.9)])
    assert_quiet(SLUG, records(loss))
    assert_fires(SLUG, records(loss), limits={"first_floor": 0})


def test_never_for_a_loss_that_can_be_negative():
    loss = np.random.default_rng(0).standard_normal(600)
    assert_quiet(SLUG, records(loss))


def test_adversarial_noise_stays_a_note():
    loss = noisy(np.full(12_000, 2.0), 0.8)
    run = records(loss, interval_steps=200, batched=100, declare={"adversarial": True})
    assert_quiet(SLUG, run, allow_info=True)


def test_first_interval_is_left_out_unless_the_guard_is_off():
    loss = np.concatenate([noisy(np.full(50, 2.0), 0.9), noisy(np.full(100, 2.0), 0.05)])
    assert_quiet(SLUG, records(loss))
    assert_fires(SLUG, records(loss), limits={"warm_up": 0}, since=(1, 1))


def test_stuck_limits_are_honoured():
    run = records(noisy(np.full(12_000, 2.0), 0.8), interval_steps=200, batched=100)
    assert_quiet(SLUG, run, allow_info=True, limits={"stuck_intervals": 100})
    half = records(noisy(np.linspace(2.0, 1.2, 12_000), 0.8), interval_steps=200, batched=100)
    assert_quiet(SLUG, half, allow_info=True)
    assert_fires(SLUG, half, severity="warning", limits={"stuck_level": 0.3})


def test_ratio_is_honoured():
    assert_quiet(SLUG, records(noisy(FALL, 0.9)), limits={"ratio": 5.0})
    assert_fires(SLUG, records(noisy(FALL, 0.3)), limits={"ratio": 0.1})
