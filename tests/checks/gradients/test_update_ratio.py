"""update-ratio: weights that jump, and weights that stand still."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import OptimizerInfo

SLUG = "update-ratio"
JUMPS = (1e-3, 0.3, 1e-3)
STILL = (1e-3, 1e-9, 2e-3)


def run(ratios, norms=(1.0, 1.0, 1.0), loss=1.0, steps=200, **more):
    columns = {"update_ratios": ratios, "grad_norms": norms, **more.pop("columns", {})}
    return records(loss, steps=steps, columns=columns, **more)


def from_step(step, row, before=(1e-3, 1e-3, 1e-3)):
    return lambda i: list(row) if i >= step else list(before)


def test_fires_where_a_layer_jumps():
    alert = assert_fires(
        SLUG, run(from_step(101, JUMPS)), severity="warning", layer="1", since=(101, 101), by=200
    )
    assert alert.value == pytest.approx(0.3)
    assert alert.fix.startswith("Lower")


def test_fires_where_a_layer_stands_still():
    alert = assert_fires(SLUG, run(list(STILL)), severity="warning", layer="1", since=(1, 1), by=100)
    assert alert.threshold == 1e-8
    assert alert.fix.startswith("Raise")


def test_quiet_on_usual_ratios():
    assert_quiet(SLUG, run([1e-3, 3e-2, 1e-5]))


def test_near_miss_one_interval():
    one = run(lambda i: list(JUMPS) if 50 < i <= 100 else [1e-3] * 3)
    assert_quiet(SLUG, one)
    assert_fires(SLUG, one, limits={"intervals": 1}, layer="1")


def test_near_miss_the_loss_is_at_its_best():
    falling = run(list(JUMPS), loss=lambda i: 3.0 - i / 100)
    assert_fires(SLUG, falling, severity="info", layer="1")
    assert_quiet(SLUG, falling, allow_info=True)
    assert_fires(SLUG, falling, severity="warning", limits={"best_loss": 0})


def test_near_miss_everything_crawls():
    assert_quiet(SLUG, run([1e-9, 1e-9, 2e-9]))
    assert_fires(SLUG, run([1e-9, 1e-9, 2e-9]), limits={"others": 0.01})


def test_near_miss_no_gradient_to_follow():
    assert_quiet(SLUG, run(list(STILL), norms=(1.0, 0.0, 1.0)))
    assert_quiet(SLUG, run(list(STILL), norms=lambda i: [1.0, None if i % 10 else 1.0, 1.0]))


def test_near_miss_the_learning_rate_has_decayed():
    decayed = run(list(STILL), lr=lambda i: 0.1 if i < 30 else 1e-3)
    assert_quiet(SLUG, decayed)
    assert_fires(SLUG, decayed, limits={"lr_share": 0})


def test_near_miss_the_loss_is_at_its_floor():
    floor = run(list(STILL), loss=lambda i: 1.0 if i <= 50 else 1e-3)
    assert_quiet(SLUG, floor)
    assert_fires(SLUG, floor, limits={"converged_share": 0})


def test_near_miss_a_matrix_that_began_at_zero():
    weights = [2.0, 0.05, 2.0]  # of 16×16 weights the usual norm is 2.3
    growing = run(list(JUMPS), columns={"weight_norms": weights})
    assert_quiet(SLUG, growing)
    assert_fires(SLUG, growing, limits={"settled": 0}, layer="1")


def test_near_miss_warm_up():
    warming = run(
        lambda i: list(JUMPS) if i < 120 else [1e-3] * 3, lr=lambda i: 1e-4 * min(i, 160), steps=300
    )
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0}, layer="1")


def test_biases_embeddings_frozen_groups_and_other_layers_never():
    base = layout()
    biases = [dataclasses.replace(p, shape=[16]) for p in base.parameters]
    tokens = [dataclasses.replace(p, shape=[1, 1, 16]) for p in base.parameters]
    embeddings = [dataclasses.replace(x, type="Embedding") for x in base.layers]
    for shape in (
        dataclasses.replace(base, parameters=biases),
        dataclasses.replace(base, parameters=tokens),
        dataclasses.replace(base, layers=embeddings),
    ):
        assert_quiet(SLUG, run(list(JUMPS), layers=shape))
    groups = [OptimizerInfo("SGD", [{"lr": 0.1}, {"lr": 0.0}])]
    held = [dataclasses.replace(p, group=int(p.layer == 1)) for p in base.parameters]
    frozen = dataclasses.replace(base, parameters=held, optimizers=groups)
    assert_quiet(SLUG, run(list(STILL), layers=frozen))


def mlp():
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def normed():
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))


def cross_entropy(batch):
    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    return loss


@pytest.mark.parametrize(("rate", "fires"), [(1e-12, True), (0.05, False)])
def test_a_real_group_whose_rate_is_far_too_small(rate, fires, tmp_path):
    def optimizer(model):
        groups = [{"params": layer.parameters()} for layer in (model[0], model[2], model[4])]
        groups[1]["lr"] = rate
        return torch.optim.SGD(groups, lr=0.05)

    made = trained(tmp_path, mlp, cross_entropy(classes()), optimizer=optimizer)
    if fires:
        assert_fires(SLUG, made, severity="warning", layer="2")
        assert {a.layer for a in run_check(SLUG, made)[1]} == {"2"}
    else:
        assert_quiet(SLUG, made)


@pytest.mark.parametrize(("rate", "fires"), [(5.0, True), (0.05, False)])
def test_a_real_rate_that_is_far_too_large(rate, fires, tmp_path):
    """Behind a norm the loss does not diverge: the weights just jump about."""

    def optimizer(model):
        groups = [{"params": model[:2].parameters(), "lr": rate}, {"params": model[3:].parameters()}]
        return torch.optim.SGD(groups, lr=0.05, weight_decay=0.05)

    made = trained(tmp_path, normed, cross_entropy(classes()), optimizer=optimizer)
    if fires:
        assert_fires(SLUG, made, severity="warning", layer="0")
    else:
        assert_quiet(SLUG, made)
