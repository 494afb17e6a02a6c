"""no-op-step: the optimizer steps and nothing changes."""

import copy
import dataclasses

import pytest

from tests.checks.wiring.trainings import Fit, alerts, loud, net, opened, sgd
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "no-op-step"


def moves(until, count=60, ratio=0.01):
    """Update ratios that are exactly 0 after step ``until``."""
    return [ratio if i <= until else 0.0 for i in range(1, count + 1)]


def test_fires_at_the_third_step_of_a_run_that_never_moved():
    run = records(steps=60, grad_norm=0.3, update_ratio=0.0)
    alert = assert_fires(SLUG, run, severity="critical", layer=None, since=(1, 1), by=3)
    assert "0.3" in alert.detail


def test_fires_when_the_model_was_replaced_in_mid_run():
    assert_fires(SLUG, records(grad_norm=0.3, update_ratio=moves(20), steps=60), since=(21, 21), by=23)


def test_fires_within_a_line_of_many_steps():
    assert_fires(
        SLUG, records(grad_norm=0.3, update_ratio=moves(20), steps=60, batched=20), since=(21, 21), by=40
    )


def test_fires_when_only_foreign_optimizers_step():
    run = records(steps=60, grad_norm=0.3, foreign_optimizer=True, lr=None)
    assert_fires(SLUG, run, severity="critical", since=(1, 1), by=10)


COVERED = {"gradients": "ok"}


def bare(steps=60, coverage=COVERED, **fields):
    """Steps whose parameters never have a gradient."""
    where = dataclasses.replace(layout(), coverage=coverage)
    return records(steps=steps, layers=where, **({"update_ratio": 0.0} | fields))


def test_fires_when_no_parameter_ever_has_a_gradient():
    alert = assert_fires(SLUG, bare(), severity="critical", layer=None, since=(1, 1), by=10)
    assert "backward()" in alert.fix


@pytest.mark.parametrize(
    "near",
    [
        {"coverage": {"gradients": "off"}},
        {"steps": 9},
        {"lr": 0.0},
        {"skipped": True},
        {"update_ratio": 1e-4},
    ],
    ids=["gradients not looked for", "too few steps", "lr zero", "skipped", "weights move"],
)
def test_near_misses_without_gradients(near):
    assert_quiet(SLUG, bare(**near), ready=False)


def test_quiet_on_moving_weights():
    assert_quiet(SLUG, records(steps=60, grad_norm=0.3, update_ratio=0.001))


@pytest.mark.parametrize(
    "near",
    [
        {"grad_norm": 0.0, "update_ratio": 0.0},
        {"grad_norm": 0.3, "update_ratio": 0.0, "skipped": True},
        {"grad_norm": 0.3, "update_ratio": [0.0 if i % 3 else 0.1 for i in range(60)]},
        {"grad_norm": 0.3, "update_ratio": moves(30), "lr": [0.1 if i < 30 else 0.0005 for i in range(60)]},
        {"grad_norm": 0.3, "update_ratio": moves(30), "lr": [0.1 if i < 30 else 0.0 for i in range(60)]},
        {"grad_norm": 0.3, "update_ratio": 0.0, "lr": 0.0},
        {"grad_norm": [None if i % 2 else 0.3 for i in range(60)], "update_ratio": 0.0, "skipped": None},
    ],
    ids=[
        "no gradient",
        "skipped",
        "two in a row",
        "decayed",
        "lr zero",
        "lr zero from the start",
        "gradient not measured",
    ],
)
def test_near_misses(near):
    assert_quiet(SLUG, records(steps=60, **near), ready=False)


def test_near_miss_first_steps_of_a_warm_up_are_below_the_resolution():
    rising = [1e-9 * i for i in range(1, 61)]
    run = records(
        steps=60, grad_norm=0.3, update_ratio=[0.0 if i <= 20 else 1e-6 for i in range(1, 61)], lr=rising
    )
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"lr_share": 0})


def test_near_miss_a_converged_run_fades_out():
    run = records(steps=60, grad_norm=1e-7, update_ratio=[10.0**-i if i < 8 else 0.0 for i in range(1, 61)])
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"resolution": 0}, since=(8, 8))


def test_near_miss_a_line_search_that_stays():
    run = records(grad_norm=0.3, update_ratio=moves(30), steps=60, layers=layout(optimizer="LBFGS"))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"line_search": 0})


def test_near_miss_embeddings_alone():
    base = layout()
    shape = dataclasses.replace(base, layers=[dataclasses.replace(x, type="Embedding") for x in base.layers])
    run = records(steps=60, grad_norm=0.3, update_ratio=0.0, layers=shape)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"sparse": 0})


def test_near_miss_another_networks_optimizer_begins():
    flags = [True if i <= 5 else None for i in range(1, 61)]
    run = records(
        steps=60, grad_norm=0.3, foreign_optimizer=flags, update_ratio=lambda i: None if i <= 5 else 0.1
    )
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"foreign_steps": 0}, by=3)


def test_limit_of_steps():
    run = records(steps=60, grad_norm=0.3, update_ratio=[0.0 if i % 6 else 0.1 for i in range(60)])
    assert_fires(SLUG, run)
    assert_quiet(SLUG, run, limits={"steps": 6})


def test_resolved_when_weights_move_again():
    run = records(steps=90, grad_norm=0.3, update_ratio=[0.0 if 20 < i < 40 else 0.1 for i in range(1, 91)])
    _, alerts = run_check(SLUG, run)
    assert [a.state for a in alerts if a.state != "updated"] == ["opened", "resolved"]


# ------------------------------------------------------------------------------------------ real trainings


def test_an_optimizer_that_holds_a_copy(tmp_path):
    model = net()
    optimizer = sgd(copy.deepcopy(model))
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = parameter.detach().clone()
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, optimizer, steps=20)), SLUG)
    assert (alert.severity, alert.since_step) == ("critical", 1)
    assert alert.step <= 12


def test_weights_that_are_put_back_after_every_step(tmp_path):
    model = net()
    optimizer = sgd(model)
    before = {}

    def keep(*_):
        before.update({p: p.detach().clone() for p in model.parameters()})

    def put_back(*_):
        for parameter, value in before.items():
            parameter.data.copy_(value)

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(put_back)
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, optimizer, steps=20)), SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("critical", 1, 3)


def test_quiet_on_its_twin(tmp_path):
    model = net()
    assert loud(alerts(tmp_path / "r.jsonl", model, Fit(model))) == []
