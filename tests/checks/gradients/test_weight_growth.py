"""weight-growth: weights that grow without end."""

import dataclasses

import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained

SLUG = "weight-growth"
USUAL = 16 / 48**0.5
"""Norm of a 16×16 matrix as torch initialises it."""


def run(norms, steps=400, **more):
    return records(1.0, steps=steps, columns={"weight_norms": norms}, **more)


def grows(rate=1.01, start=USUAL, which=1):
    return lambda step: [start * rate**step if i == which else USUAL for i in range(3)]


def test_fires_with_layer_and_onset():
    alert = assert_fires(SLUG, run(grows()), severity="warning", layer="1", by=300)
    assert 201 <= alert.since_step <= 251  # 1.01^232 is ten
    assert alert.value > alert.threshold == pytest.approx(10 * USUAL, rel=0.02)


def test_quiet_on_tenfold_growth_that_ends():
    assert_quiet(SLUG, run(lambda i: [USUAL * min(1 + 3 * i, 60)] * 3))
    assert_fires(SLUG, run(lambda i: [USUAL * min(1 + 3 * i, 60)] * 3), limits={"intervals": 0})


def test_near_miss_it_hardly_grows_any_more():
    slow = run(lambda i: [USUAL * (15 if i > 60 else 1) * 1.0001**i] * 3)
    assert_quiet(SLUG, slow)
    assert_fires(SLUG, slow, limits={"growth": 0})


def test_near_miss_it_began_near_zero():
    small = run(grows(start=USUAL / 1000))
    assert_quiet(SLUG, small)
    assert_fires(SLUG, small, limits={"factor": 0.02})
    assert_quiet(SLUG, run(lambda i: [USUAL / 1000 * 1.01**i] * 3))


def test_near_miss_others_of_its_shape_are_as_large():
    assert_quiet(SLUG, run(lambda i: [20 * USUAL, USUAL * 1.01**i, 20 * USUAL]))


def test_near_miss_eightfold():
    assert_quiet(SLUG, run(grows(1.0052)))


def test_biases_never():
    base = layout()
    biases = dataclasses.replace(
        base, parameters=[dataclasses.replace(p, shape=[256]) for p in base.parameters]
    )
    assert_quiet(SLUG, run(grows(1.02), layers=biases))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_real_penalty_with_the_wrong_sign(sign, tmp_path):
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y) + sign * 0.1 * model[0].weight.square().sum()

    made = trained(tmp_path, lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4)), loss)
    if sign < 0:
        assert_fires(SLUG, made, severity="warning", layer="0")
        assert {a.layer for a in run_check(SLUG, made)[1]} == {"0"}
    else:
        assert_quiet(SLUG, made)
