import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.checks.loss import overfitting

SLUG = "overfitting"
NO_GUARDS = {
    "patience": 0,
    "patience_share": 0,
    "generalisation_loss": 0,
    "sigmas": 0,
    "certain_slope": 0,
    "steady_sigmas": 0,
    "metric_improves": 0,
}
VAL = [1.9, 1.2, 0.8, 0.6, 0.5, 0.52, 0.55, 0.6, 0.66, 0.72, 0.8]


def run(val, train=None, name="val_loss", other=None, per=20, **options):
    train = [2.0 * 0.75**i for i in range(len(val))] if train is None else train
    rng = np.random.default_rng(0)
    loss = np.concatenate([m * (1 + 0.05 * rng.standard_normal(per)) for m in train])
    evals = {per * (i + 1): {name: v} for i, v in enumerate(val)}
    for step, value in zip(evals, other or [], strict=False):
        evals[step]["val_accuracy"] = value
    return records(loss, epoch_steps=per, evals=evals, **options)


@pytest.mark.parametrize("name", ["val_loss", "eval_loss", "valid_loss"])
def test_fires_with_the_best_evaluation_as_onset(name):
    alert = assert_fires(SLUG, run(VAL, name=name), severity="warning", since=(100, 100), by=200)
    assert alert.threshold == 0.5
    assert "epoch 4 (step 100)" in alert.fix


def test_levels_of_train_and_validation_are_never_compared():
    assert_fires(SLUG, run(VAL, train=[200.0 * 0.75**i for i in range(11)]), since=(100, 100))
    assert_quiet(SLUG, run([5 * 0.9**i for i in range(11)]))


def test_near_miss_within_five_percent():
    slight = run([*VAL[:5], 0.505, 0.51, 0.515, 0.52, 0.522, 0.524])
    assert_quiet(SLUG, slight, limits={"sigmas": 0})
    assert_fires(SLUG, slight, limits={"sigmas": 0, "generalisation_loss": 1})


def test_a_plain_turn_is_told_after_three_evaluations():
    turn = [3.05, 2.86, 2.99, 3.11, 3.25]
    assert_fires(SLUG, run(turn), since=(40, 40), by=100)
    assert_quiet(SLUG, run(turn), limits={"steady_sigmas": 0})


def test_near_miss_a_turn_within_noise_of_unknown_size():
    assert_quiet(SLUG, run([3.05, 2.86, 2.95, 2.96, 3.25]))


def test_near_miss_validation_never_fell():
    """Classes that come later: validation on all of them gets worse while training is on the first ones."""
    assert_quiet(SLUG, run([2.86, 2.99, 3.11, 3.25, 3.48]))


def test_near_miss_a_turn_in_which_training_rose_once():
    turn = [3.05, 2.86, 2.99, 3.11, 3.25]
    assert_quiet(SLUG, run(turn, train=[2.0, 1.5, 1.2, 1.3, 1.0]))


def test_noise_is_seldom_taken_for_a_turn():
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(300):
        val = (0.4 + 2 * np.exp(-np.arange(15) / 3)) * np.exp(0.04 * rng.standard_normal(15))
        looks = (val[:n] for n in range(5, 16))
        alarms += any(
            0 < (best := int(v.argmin())) <= v.size - 4
            and bool((np.diff(v[best:]) > 0).all())
            and overfitting._is_clear(v, best, overfitting.Limits())
            for v in looks
        )
    assert alarms <= 2


def test_near_miss_within_noise():
    rng = np.random.default_rng(5)
    val = 0.5 * (1 + 0.08 * rng.standard_normal(30))
    assert_quiet(SLUG, run(val, train=[2.0 * 0.9**i for i in range(30)]))


def test_near_miss_one_lucky_evaluation_is_no_rise():
    lucky = [0.4, *[0.5 + 0.002 * (-1) ** i for i in range(12)]]
    train = [2.0 * 0.8**i for i in range(13)]
    assert_quiet(SLUG, run(lucky, train=train))
    assert_fires(SLUG, run(lucky, train=train), limits={"certain_slope": 0}, since=(20, 20))


def test_near_miss_training_rises_too():
    assert_quiet(SLUG, run(VAL, train=[2.0, 1.5, 1.0, 0.8, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]))


def test_near_miss_best_is_recent():
    assert_quiet(SLUG, run([1.9, 1.2, 0.8, 0.6, 0.5, 0.7, 0.8]))


def test_near_miss_it_came_back():
    assert_quiet(SLUG, run([1.9, 1.2, 0.8, 0.6, 0.5, 0.6, 0.62, 0.5, 0.49, 0.48]))


def test_only_noted_while_accuracy_improves():
    better = [0.3 + 0.04 * i for i in range(11)]
    assert_quiet(SLUG, run(VAL, other=better), allow_info=True)
    assert "val_accuracy still improves" in assert_fires(SLUG, run(VAL, other=better), severity="info").detail
    assert_fires(SLUG, run(VAL, other=better), severity="warning", limits={"metric_improves": 0})


def test_a_warning_once_accuracy_stands_still():
    still = [0.3, 0.5, 0.7, 0.8, 0.85, 0.85, 0.86, 0.85, 0.84, 0.85, 0.84]
    assert_fires(SLUG, run(VAL, other=still), severity="warning")


def test_a_memorised_training_set_cannot_fall_further():
    train = [2.0, 1.0, 0.3, 0.05, 1e-3, 1.1e-3, 1e-3, 1.1e-3, 1.2e-3, 1.1e-3, 1.2e-3]
    assert_fires(SLUG, run(VAL, train=train), since=(100, 100))


def test_a_long_run_must_rise_for_a_tenth_of_it():
    val = np.concatenate([np.linspace(2, 0.5, 90), [0.6, 0.601, 0.602, 0.603, 0.604]])
    longer = run(val, train=[2.0 * 0.97**i for i in range(95)], per=5)
    assert_quiet(SLUG, longer)
    assert_fires(SLUG, longer, limits={"patience_share": 0}, since=(450, 450))


def test_guards_off_leave_the_bare_trigger():
    val = [*VAL[:5], 0.501, 0.502]
    assert_quiet(SLUG, run(val))
    assert_fires(SLUG, run(val), limits=NO_GUARDS, since=(100, 100), by=140)


def test_patience_is_honoured():
    assert_quiet(SLUG, run(VAL), limits={"patience": 8}, ready=False)
    assert_fires(SLUG, run(VAL), limits={"patience": 4}, by=220)


def test_not_run_without_a_validation_loss():
    engine = assert_quiet(SLUG, records([1.0] * 50), ready=False)
    assert engine.not_run() == {SLUG: "no `val_loss`"}


def test_near_miss_training_falls_now_and_then_but_rises():
    train = [2.0, 1.5, 1.0, 0.8, 0.6, 0.9, 0.8, 1.2, 1.1, 1.5, 1.4]
    assert_quiet(SLUG, run(VAL, train=train))


def test_only_noted_while_accuracy_rises_slowly():
    rng = np.random.default_rng(0)
    val = [*VAL[:5], *[0.52 + 0.03 * i for i in range(25)]]
    train = [2.0 * 0.85**i for i in range(30)]
    slow = [0.9 - 0.5 * np.exp(-i / 10) + 0.004 * rng.standard_normal() for i in range(30)]
    assert_quiet(SLUG, run(val, train=train, other=slow), allow_info=True)


def test_the_best_evaluation_may_come_before_the_first_training_loss():
    late = run(VAL[4:], train=[2.0 * 0.75**i for i in range(7)])
    late = [r for r in late if getattr(r, "step", None) is None or r.step >= 20 or not hasattr(r, "loss")]
    assert_fires(SLUG, late, severity="warning", since=(20, 20))
