import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "loss-divergence"
NO_GUARDS = {
    "sigmas": 0, "rise_share": 0, "first_share": 0, "slope_intervals": 0, "lr_intervals": 0, "adversarial": 0,
}  # fmt: skip


def steps(means, noise=0.02, per=40, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([m * (1 + noise * rng.standard_normal(per)) for m in means])


def run(means, **options):
    options = {"noise": 0.02} | options
    return records(steps(means, options.pop("noise")), interval_steps=40, **options)


FALL = [2.3, 1.4, 0.9, 0.6, 0.45, 0.4]


def test_fires_after_two_rises_with_the_first_one_as_onset():
    alert = assert_fires(SLUG, run([*FALL, 0.6, 0.8, 1.0]), severity="warning", since=(241, 241), by=320)
    assert alert.value == pytest.approx(0.8, rel=0.02)


def test_critical_above_the_first_interval():
    assert_fires(SLUG, run([*FALL, 0.9, 1.8, 3.0]), severity="critical", since=(241, 241), by=360)


def test_fires_on_a_run_that_rises_from_the_start():
    assert_fires(SLUG, run([2.3, 2.4, 2.7, 3.1, 3.6, 4.2]), severity="critical", since=(81, 81))


def test_near_miss_one_rise():
    assert_quiet(SLUG, run([*FALL, 0.6, 0.4, 0.39]))


def test_near_miss_rises_within_noise():
    assert_quiet(SLUG, run([*FALL, 0.405, 0.42, 0.40, 0.41, 0.42]))


def test_near_miss_large_noise():
    assert_quiet(SLUG, run([*FALL, 0.44, 0.48, 0.42], noise=1.2))


def test_quiet_within_two_intervals_of_a_raised_lr():
    lr = np.where(np.arange(360) < 240, 0.01, 0.1)
    bump = [*FALL, 0.6, 0.8, 0.5]
    assert_quiet(SLUG, run(bump, lr=lr))
    assert_fires(SLUG, run(bump, lr=lr), limits={"lr_intervals": 0})


def test_quiet_after_a_single_jump_that_two_intervals_share():
    rng = np.random.default_rng(0)
    level = np.concatenate([np.repeat(FALL, 40), 0.4 + 0.8 * np.exp(-np.arange(180) / 60)])
    level[240:272] = 0.4
    assert_quiet(SLUG, records(level * (1 + 0.02 * rng.standard_normal(level.size)), interval_steps=40))


@pytest.mark.parametrize("word", ["adversarial", "reinforcement"])
def test_only_noted_where_the_loss_is_not_made_to_fall(word):
    declared = run([*FALL, 0.6, 0.8, 1.0], declare={word: True})
    assert_quiet(SLUG, declared, allow_info=True)
    assert_fires(SLUG, declared, severity="info")
    assert_fires(SLUG, declared, severity="warning", limits={"adversarial": 0})


def test_only_noted_for_a_loss_that_changes_its_sign():
    loss = steps([v - 0.5 for v in [*FALL, 0.6, 0.8, 1.0]])
    assert_quiet(SLUG, records(loss, interval_steps=40), allow_info=True)


def test_guards_off_leave_two_rises():
    wiggle = [*FALL, 0.405, 0.41, 0.40]
    assert_quiet(SLUG, run(wiggle, noise=0.001))
    assert_fires(SLUG, run(wiggle, noise=0.001), limits=NO_GUARDS, since=(241, 241), by=320)


def test_rises_are_honoured():
    assert_quiet(SLUG, run([*FALL, 0.6, 0.8, 0.3]), limits={"rises": 3})
    assert_fires(SLUG, run([*FALL, 0.6, 0.8, 1.0]), limits={"rises": 3}, by=360)


def test_near_miss_a_certain_but_small_rise():
    small = run([*FALL, *[0.4] * 20, 0.415, 0.43], noise=0.002)
    assert_quiet(SLUG, small)
    assert_fires(SLUG, small, limits={"rise_share": 0.05})
