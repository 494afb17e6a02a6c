"""gradient-spike: single steps far above their neighbours."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import OptimizerInfo

SLUG = "gradient-spike"


def run(at, factor=30.0, steps=400, sigma=0.3, loss=1.0, **more):
    """Noisy norms around 1, at some steps ``factor`` times as large."""
    norms = np.exp(np.random.default_rng(0).normal(0, sigma, steps))
    for step in at:
        norms[step - 1] *= factor
    return records(loss, steps=steps, grad_norm=norms, **more)


def test_one_spike_is_noted_with_its_step():
    alert = assert_fires(SLUG, run([300], fingerprint="0badcafe"), severity="info", since=(300, 300), by=300)
    assert "at step 300" in alert.title
    assert "0badcafe" in alert.detail
    assert alert.value > alert.threshold


@pytest.mark.parametrize("batched", [None, 40])
def test_more_than_three_in_a_hundred_are_a_warning(batched):
    often = [210, 230, 250, 270]
    assert_fires(SLUG, run(often, batched=batched), severity="warning", since=(210, 210))
    assert_quiet(SLUG, run(often[:3]), allow_info=True)
    assert_quiet(SLUG, run([110, 160, 210, 260, 310]), allow_info=True)


def test_quiet_on_noise():
    assert_quiet(SLUG, run([], sigma=0.5))


def test_near_miss_not_armed_yet():
    assert_quiet(SLUG, run([60]))
    assert_fires(SLUG, run([60]), limits={"armed_after": 40}, since=(60, 60))


def test_near_miss_a_steady_run_with_a_small_bump():
    assert_quiet(SLUG, run([300], factor=4.0, sigma=0.01))
    assert_fires(SLUG, run([300], factor=4.0, sigma=0.01), limits={"sigma_least": 0, "near_ratio": 2.0})


def test_near_miss_the_norm_has_risen_for_good():
    norms = [1.0] * 200 + [float(2 ** min((i + 4) // 5, 6)) for i in range(200)]
    climb = records(1.0, steps=400, grad_norm=norms)
    assert_quiet(SLUG, climb)
    assert_fires(SLUG, climb, limits={"near_ratio": 0})


def test_near_miss_below_the_level_at_which_training_began():
    norms = np.where(np.arange(400) < 100, 1.0, 0.01)
    norms[[220, 240, 260, 280]] = 0.5
    late = records(1.0, steps=400, grad_norm=norms)
    assert_quiet(SLUG, late, allow_info=True)
    assert_fires(SLUG, late, severity="warning", limits={"first_ratio": 0})


def test_near_miss_the_loss_is_at_its_best():
    falling = run([210, 230, 250, 270], loss=lambda i: 3.0 - i / 200)
    assert_quiet(SLUG, falling, allow_info=True)
    assert_fires(SLUG, falling, severity="warning", limits={"best_loss": 0})


def test_near_miss_clipped():
    norms = np.ones(400)
    norms[[220, 240, 260, 280]] = 30.0
    clipped = records(
        1.0, steps=400, grad_norm=1.0, grad_norm_preclip=norms, clipped=lambda i: bool(norms[i - 1] > 1)
    )
    assert_fires(SLUG, clipped, severity="info")
    assert_quiet(SLUG, clipped, allow_info=True)
    assert_fires(SLUG, clipped, severity="warning", limits={"clipped": 0})


def test_near_miss_heavy_tails_by_nature():
    often = [210, 230, 250, 270]
    two = layout()
    two.optimizers.append(OptimizerInfo("SGD", [{"lr": 0.1}]))
    for made in (run(often, declare={"reinforcement": True}), run(often, layers=two)):
        assert_quiet(SLUG, made, allow_info=True)
        assert_fires(SLUG, made, severity="warning", limits={"heavy_tails": 0})


def test_near_miss_the_learning_rate_was_raised():
    def rate(step):
        return 0.01 if step < 200 else 0.1

    raised = run([202, 210, 220, 230], lr=rate)
    assert_quiet(SLUG, raised, allow_info=True)
    assert_fires(SLUG, raised, severity="warning", limits={"after_lr_rise": 0})


def test_near_miss_warm_up():
    warming = run([150], lr=lambda i: 1e-4 * min(i, 200))
    assert_quiet(SLUG, warming)
    assert_quiet(SLUG, run([150], lr=lambda i: 1e-4 * min(i, 160), batched=100, interval_steps=400))
    assert_fires(SLUG, warming, limits={"warm_up": 0})


def test_what_is_not_finite_is_no_spike():
    norms = [1.0] * 400
    norms[299], norms[300] = math.inf, math.nan
    assert_quiet(SLUG, records(1.0, steps=400, grad_norm=norms))


def test_it_resolves():
    _, alerts = run_check(SLUG, run([150]))
    assert [a.state for a in alerts] == ["opened", "resolved"]


@pytest.mark.parametrize("bad", [True, False])
def test_a_real_run_with_bad_batches(bad, tmp_path):
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        target = y.float()[:, None].expand(-1, 4)
        return functional.mse_loss(
            model(x), target * 1000 if bad and step > 100 and step % 17 == 0 else target
        )

    made = trained(
        tmp_path,
        lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)),
        loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3),
    )
    if bad:
        assert_fires(SLUG, made, severity="warning", since=(102, 102))
    else:
        assert_quiet(SLUG, made)
