"""exploding-gradients: norms far above what the run began with."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import OptimizerInfo

SLUG = "exploding-gradients"


def noisy(count, sigma=0.3, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, sigma, count))


def exploding(at, count=400, factor=60.0, **more):
    """Noisy norms around 1 that are ``factor`` times as large from step ``at`` on; the loss stays level."""
    norms = noisy(count)
    norms[at - 1 :] *= factor
    return records(more.pop("loss", 1.0), steps=count, grad_norm=norms, **more)


@pytest.mark.parametrize("at", [60, 130, 300])
def test_fires_three_steps_after_the_onset(at):
    alert = assert_fires(SLUG, exploding(at), severity="info", layer=None, since=(at, at), by=at + 2)
    assert alert.value > alert.threshold
    assert_fires(SLUG, exploding(at), severity="warning", since=(at, at), by=at + 10)
    assert_fires(SLUG, exploding(at, loss=None), severity="warning", since=(at, at), by=at + 2)


def test_critical_when_the_loss_follows():
    loss = [1.0 if i < 203 else 5.0 for i in range(400)]
    assert_fires(SLUG, exploding(200, loss=loss), severity="critical", since=(200, 200))
    assert_fires(
        SLUG, exploding(200, loss=[1.0 if i < 203 else math.nan for i in range(400)]), severity="critical"
    )


def test_stays_open_in_a_run_shorter_than_its_reference():
    _, alerts = run_check(SLUG, exploding(60, 110))
    assert {a.state for a in alerts} <= {"opened", "updated"}
    assert alerts[0].since_step == 60


def test_eight_sigma_above_the_last_128_when_the_loss_follows():
    norms = noisy(400, 0.1)
    norms[:60] *= 30.0  # early norms are large, as in most runs
    norms[300:] *= 20.0
    loss = [1.0 if i < 303 else 4.0 for i in range(400)]
    run = records(loss, steps=400, grad_norm=norms)
    assert_fires(SLUG, run, severity="critical", since=(301, 301), by=307)
    assert_quiet(SLUG, run, limits={"sigmas": 0})
    assert_quiet(SLUG, records(1.0, steps=400, grad_norm=norms))


def test_the_norm_before_clipping_counts():
    clipped = [i >= 300 for i in range(1, 401)]
    norms = noisy(400)
    norms[299:] *= 60
    run = records(1.0, steps=400, grad_norm=np.minimum(norms, 5), grad_norm_preclip=norms, clipped=clipped)
    alert = assert_fires(SLUG, run, since=(300, 300), by=302)
    assert alert.metric == "grad_norm_preclip"


def test_near_miss_under_clipping_that_was_always_on():
    norms = noisy(400)
    norms[299:] *= 60
    values = {"grad_norm": 0.1, "grad_norm_preclip": norms, "clipped": True}
    assert_quiet(SLUG, records(1.0, steps=400, **values))
    assert_fires(SLUG, records(1.0, steps=400, **values), limits={"clipped_rise": 0})
    rising = [1.0 if i < 303 else 4.0 for i in range(400)]
    assert_fires(SLUG, records(rising, steps=400, **values), severity="critical")


def test_near_miss_two_spikes_in_five():
    norms = noisy(400)
    norms[[200, 203, 300, 301]] = 500.0
    assert_quiet(SLUG, records(1.0, steps=400, grad_norm=norms))
    assert_fires(SLUG, records(1.0, steps=400, grad_norm=norms), limits={"steps": 2}, since=(201, 201))


def test_near_miss_warm_up_is_not_judged_and_not_the_reference():
    rates = [1e-4 * min(i, 150) for i in range(1, 401)]
    norms = noisy(400)
    norms[:100] *= 0.01
    run = records(1.0, steps=400, grad_norm=norms, lr=rates)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"warm_up": 0})


def test_near_miss_heavy_tails_of_two_optimizers():
    norms = noisy(600, 0.2)
    norms[:60] *= 30.0
    norms[300:] *= 20.0
    loss = [1.0 if i < 303 else 4.0 for i in range(600)]
    shape = layout()
    shape.optimizers.append(OptimizerInfo("Adam", [{"lr": 0.01}]))
    assert_quiet(SLUG, records(loss, steps=600, grad_norm=norms, layers=shape))
    assert_fires(SLUG, records(loss, steps=600, grad_norm=norms, layers=shape), limits={"heavy_tails": 0})
    assert_quiet(SLUG, records(loss, steps=600, grad_norm=norms, declare={"adversarial": True}))


def test_near_miss_after_the_learning_rate_was_raised():
    norms = noisy(400, 0.1)
    norms[:60] *= 30.0
    norms[300:340] *= 20.0
    loss = [4.0 if 303 <= i < 340 else 1.0 for i in range(400)]
    rates = [0.01 if i >= 299 else 0.001 for i in range(400)]
    run = records(loss, steps=400, grad_norm=norms, lr=rates)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"after_lr_rise": 0})


def test_leaving_a_plateau_is_an_info():
    norms = noisy(400)
    norms[300:] *= 30.0
    loss = [2.3 if i < 300 else 2.3 * 0.97 ** (i - 300) for i in range(400)]
    run = records(loss, steps=400, grad_norm=norms)
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="warning", limits={"falling_loss": 0}, by=312)
    assert_fires(SLUG, run, severity="warning", limits={"wait_for_loss": 0}, by=303)


@pytest.mark.parametrize("seed", range(8))
def test_quiet_on_heavy_tailed_norms(seed):
    random = np.random.default_rng(seed)
    norms = np.exp(random.standard_t(3, 1500) * 0.6) * np.exp(np.cumsum(random.normal(0, 0.01, 1500)))
    assert_quiet(SLUG, records(np.exp(random.normal(0, 0.3, 1500)), steps=1500, grad_norm=norms))


def test_quiet_on_bursts_of_a_converged_run():
    steps = np.arange(1, 1001)
    norms = np.exp(-steps / 60) + 1e-7
    norms[800:810] *= 1000
    loss = np.exp(-steps / 50) + 1e-9
    loss[801:811] *= 1000
    assert_quiet(SLUG, records(loss, steps=1000, grad_norm=norms))


def test_limits():
    assert_quiet(SLUG, exploding(300), limits={"factor": 1000, "sigmas": 0})
    assert_quiet(SLUG, exploding(60, 90), limits={"reference_least": 95}, ready=False)
    loss = [1.0 if i < 303 else 5.0 for i in range(400)]
    assert_fires(SLUG, exploding(300, loss=loss), limits={"loss_factor": 10}, severity="warning")


@pytest.mark.parametrize("raised", [True, False])
def test_a_real_rate_that_is_raised_too_far(raised, tmp_path):
    batch, held = classes(), []

    def loss(model, step):
        x, y = batch(step)
        if raised and step == 150:
            held[0].param_groups[0]["lr"] = 2.0
        return functional.mse_loss(model(x), y.float()[:, None])

    def optimizer(model):
        held.append(torch.optim.SGD(model.parameters(), lr=0.02))
        return held[0]

    def make():
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1))

    made = trained(tmp_path, make, loss, steps=200, optimizer=optimizer)
    if raised:
        assert_fires(SLUG, made, severity="critical", since=(150, 156))
    else:
        assert_quiet(SLUG, made)
