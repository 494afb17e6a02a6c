import dataclasses
import math

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from torchwatch.records import OptimizerInfo

SLUG = "loss-explosion"
NO_GUARDS = {
    "sigmas": 0, "sustained": 0, "unseen_steps": 0, "first_level": 0, "first_floor": 0, "lr_intervals": 0,
    "settle_intervals": 0, "settling": 0, "adversarial": 0,
}  # fmt: skip


def noisy(level, share=0.05, seed=0):
    level = np.asarray(level, float)
    return level * np.exp(share * np.random.default_rng(seed).standard_normal(level.size))


def decay(n=400):
    return 0.3 + 2 * np.exp(-np.arange(n) / 60)


def jump(at, to, n=400, share=0.05):
    level = decay(n)
    level[at - 1 :] = to
    return noisy(level, share)


@pytest.mark.parametrize("batched", [None, 7, 60])
def test_fires_on_steps_above_the_first_level(batched):
    alert = assert_fires(
        SLUG, records(jump(230, 40.0), batched=batched), severity="critical", since=(229, 231), by=300
    )
    assert alert.value == pytest.approx(40, rel=0.2)
    assert "at step 230" in alert.title


def test_fires_within_a_few_steps():
    assert_fires(SLUG, records(jump(230, 40.0)), severity="critical", by=235)


def test_below_the_first_level_it_is_a_warning_once_two_intervals_show_it():
    run = records(jump(230, 1.2), interval_steps=40)
    assert_fires(SLUG, run, severity="warning", since=(225, 235), by=320)
    with pytest.raises(AssertionError):
        assert_fires(SLUG, run, severity="critical")


def test_near_miss_not_quite_twice():
    assert_quiet(SLUG, records(jump(230, 0.55), interval_steps=40))


def test_steps_say_nothing_while_a_loss_above_the_first_level_already_falls_again():
    level = np.concatenate([decay(300), 0.3 + 6 * np.exp(-np.arange(300) / 7)])
    run = noisy(level, 0.02)
    assert_quiet(SLUG, records(run, interval_steps=50), allow_info=True)
    assert_fires(SLUG, records(run, interval_steps=50), limits={"settling": 0}, severity="critical", by=310)


def test_quiet_where_the_loss_falls_again_after_a_curriculum_step():
    level = np.concatenate([decay(300), 0.3 + 0.6 * np.exp(-np.arange(300) / 80)])
    assert_quiet(SLUG, records(noisy(level), interval_steps=50), allow_info=True)


def test_quiet_on_a_few_hard_batches():
    loss = noisy(decay())
    loss[[200, 203, 204, 300]] *= 30
    assert_quiet(SLUG, records(loss))


def test_lr_restart_is_only_noted_until_it_lasts_above_the_first_level():
    lr = np.where(np.arange(600) < 299, 0.01, 0.1)
    bump = noisy(np.concatenate([decay(300), 0.4 + 1.2 * np.exp(-np.arange(300) / 60)]))
    assert_quiet(SLUG, records(bump, lr=lr, interval_steps=50), allow_info=True)
    assert_fires(SLUG, records(bump, lr=lr, interval_steps=50), severity="info", since=(295, 305))
    lost = noisy(np.concatenate([decay(300), np.full(300, 2.4)]))
    assert_fires(SLUG, records(lost, lr=lr, interval_steps=50), severity="critical", since=(299, 302), by=450)
    far = noisy(np.concatenate([decay(300), np.full(300, 50.0)]))
    assert_fires(SLUG, records(far, lr=lr, interval_steps=50), severity="critical", by=310)


def test_a_loss_with_signs_is_judged_by_sigma_alone():
    rng = np.random.default_rng(1)
    loss = -50 + rng.standard_normal(300)
    assert_quiet(SLUG, records(loss + 3 * (np.arange(300) > 200)))
    assert_fires(SLUG, records(loss + 40 * (np.arange(300) > 200)), severity="critical", since=(201, 203))


@pytest.mark.parametrize("watched", [True, False])
def test_two_optimizers_excuse_what_only_intervals_show(watched):
    """Both networks of a GAN watched, or one of them beside the other's optimizer."""
    shape = layout()
    second = {"optimizers": [*shape.optimizers, OptimizerInfo("Adam", [{"lr": 0.1}])]}
    shape = dataclasses.replace(shape, **(second if watched else {"other_optimizers": ["Adam"]}))
    run = records(jump(230, 1.2), interval_steps=40, layers=shape)
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="warning", limits={"adversarial": 0})


def test_guards_off_leave_the_bare_trigger():
    run = records(jump(230, 0.75, share=0.3), interval_steps=400)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, severity="critical", by=250, limits=NO_GUARDS)


def test_ratio_is_honoured():
    assert_quiet(SLUG, records(jump(230, 4.0)), limits={"ratio": 20.0})
    assert_fires(SLUG, records(jump(230, 4.0)), limits={"ratio": 3.0}, severity="critical")


def test_nan_is_not_its_matter():
    loss = list(noisy(decay(200))) + [math.nan] * 100
    assert_quiet(SLUG, records(loss))


def test_not_ready_before_there_is_a_level():
    assert_quiet(SLUG, records([1.0] * 20), ready=False)


def test_near_miss_three_of_five_steps():
    loss = noisy(decay())
    loss[[300, 302, 304]] *= 40
    assert_quiet(SLUG, records(loss), limits={"unseen_steps": 0})
    assert_fires(SLUG, records(loss), limits={"unseen_steps": 0, "sustained": 0}, by=306)


def test_steps_after_a_raised_lr_may_pass_the_first_level():
    level = decay()
    level[300:320] = 2.6
    lr = np.where(np.arange(400) < 300, 0.01, 0.1)
    assert_quiet(SLUG, records(noisy(level), lr=lr, interval_steps=40), allow_info=True)
    assert_fires(SLUG, records(noisy(level), interval_steps=40), severity="critical", since=(301, 301))


@pytest.mark.parametrize(
    ("layout_step", "optimizers", "severity"), [(230, 2, "info"), (1, 1, "critical"), (230, 1, "critical")]
)
def test_another_optimizer_brings_another_loss(layout_step, optimizers, severity):
    """Pretraining ends at step 229; a layout of one optimizer, or one from the start, explains nothing."""
    run = records(jump(230, 20.0), interval_steps=400)
    shape = next(r for r in run if r.kind == "layout")
    every = [*shape.optimizers, OptimizerInfo("Adam", [{"lr": 0.1}])][:optimizers]
    later = dataclasses.replace(shape, step=layout_step, optimizers=every)
    at = next(i for i, r in enumerate(run) if r.kind == "step" and r.step == layout_step)
    run.insert(at, later)
    if severity == "info":
        assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity=severity, by=260)
