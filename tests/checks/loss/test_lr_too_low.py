import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "lr-too-low"
STEADY = (3 - np.arange(600) / 600) * (1 + 0.01 * np.random.default_rng(0).standard_normal(600))


def run(loss=STEADY, update_ratio=3e-6, **options):
    return records(loss, update_ratio=update_ratio, **options)


def test_small_steps_downhill_are_a_note():
    alert = assert_fires(SLUG, run(), severity="info", since=(51, 51), by=200)
    assert alert.value == 3e-6


def test_near_miss_steps_of_twice_the_limit():
    assert_quiet(SLUG, run(update_ratio=2e-5))
    assert_fires(SLUG, run(update_ratio=2e-5), limits={"update_ratio": 3e-5})


def test_near_miss_only_two_intervals_in_a_row():
    assert_quiet(SLUG, run(update_ratio=lambda n: 1e-3 if (n - 1) // 50 % 3 == 0 else 3e-6))


def test_near_miss_the_loss_stands_still():
    flat = 2 * (1 + 0.01 * np.random.default_rng(1).standard_normal(600))
    assert_quiet(SLUG, run(flat))


def test_near_miss_weights_that_stand_still_are_another_check():
    assert_quiet(SLUG, run(update_ratio=0.0))


def test_near_miss_end_of_a_decay():
    decayed = [1e-3] * 100 + [1e-5] * 500
    ratios = [1e-3] * 100 + [3e-6] * 500
    assert_quiet(SLUG, run(update_ratio=ratios, lr=decayed))
    assert_fires(SLUG, run(update_ratio=ratios, lr=decayed), limits={"lr_share": 0})


def test_near_miss_warm_up():
    warm = [1e-8 * n for n in range(1, 601)]
    assert_quiet(SLUG, run(lr=warm))
    assert_fires(SLUG, run(lr=warm), limits={"warm_up": 0, "lr_share": 0})


def test_near_miss_declared_fine_tuning():
    tuned = run(declare={"fine_tuning": True})
    assert_quiet(SLUG, tuned)
    assert_fires(SLUG, tuned, limits={"fine_tuning": 0})


def test_not_run_without_update_ratios():
    engine = assert_quiet(SLUG, run(update_ratio=None), ready=False)
    assert engine.not_run() == {SLUG: "no `update_ratio`"}
