import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "loss-plateau"


def loss(means, per=20, share=0.01):
    rng = np.random.default_rng(0)
    return np.concatenate([m * (1 + share * rng.standard_normal(per)) for m in means])


FALL = [2.3, 1.6, 1.1, 0.8, 0.6]
FLAT = [0.5, 0.501, 0.499, 0.5, 0.502, 0.5, 0.499]


def test_fires_on_intervals_and_is_only_a_note():
    alert = assert_fires(SLUG, records(loss([*FALL, *FLAT]), interval_steps=20), severity="info", by=240)
    assert "loss per interval" in alert.title
    assert_quiet(SLUG, records(loss([*FALL, *FLAT]), interval_steps=20), allow_info=True)


def test_speaks_of_epochs_where_there_are_some():
    assert "loss per epoch" in assert_fires(SLUG, records(loss([*FALL, *FLAT]), epoch_steps=20)).title


def test_validation_loss_goes_first():
    flat = {20 * (i + 1): {"val_loss": v} for i, v in enumerate([*FALL, *FLAT])}
    falling = {20 * (i + 1): {"val_loss": 2.0 * 0.9**i} for i in range(12)}
    alert = assert_fires(SLUG, records(loss([2 * 0.9**i for i in range(12)]), epoch_steps=20, evals=flat))
    assert alert.metric == "val_loss"
    assert_quiet(SLUG, records(loss([*FALL, *FLAT]), epoch_steps=20, evals=falling))


def test_near_miss_slow_but_certain_fall():
    slow = [1.0 - 0.009 * i for i in range(14)]
    assert_quiet(SLUG, records(loss(slow, share=0.0001), interval_steps=20))


def test_near_miss_rising_is_no_plateau():
    assert_quiet(SLUG, records(loss([1.0 + 0.05 * i for i in range(12)]), interval_steps=20))


def test_slope_guard_off_leaves_the_improvement_alone():
    slow = [1.0 - 0.003 * i for i in range(14)]
    assert_quiet(SLUG, records(loss(slow, share=0.0001), interval_steps=20))
    assert_fires(SLUG, records(loss(slow, share=0.0001), interval_steps=20), limits={"slope_points": 0})


def test_waits_for_a_share_of_the_planned_steps():
    run = records(loss([*FALL, *FLAT]), interval_steps=20, declare={"planned_steps": 10_000})
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"planned_share": 0})


def test_improvement_is_honoured():
    slow = loss([*FALL, 0.5, 0.495, 0.497, 0.496, 0.494, 0.493, 0.495], share=0.0001)
    assert_quiet(SLUG, records(slow, interval_steps=20), limits={"improvement": 0.0001, "slope_points": 0})
    assert_fires(SLUG, records(slow, interval_steps=20), limits={"improvement": 0.05, "slope_points": 0})


def test_not_ready_with_few_points():
    assert_quiet(SLUG, records(loss(FALL), interval_steps=20), ready=False)
