"""redundant-layers: two layers in a row that compute almost the same."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo, ParameterInfo

SLUG = "redundant-layers"


def shape(features=16, reads=16, kind="Linear"):
    infos = [
        LayerInfo("a", "Linear", 256, order=0, inputs=[[32, 16]], outputs=[[32, 16]]),
        LayerInfo("act", "ReLU", order=1, inputs=[[32, 16]], outputs=[[32, 16]]),
        LayerInfo("b", kind, 256, order=2, inputs=[[32, 16]], outputs=[[32, features]]),
    ]
    weights = [
        ParameterInfo(f"{n}.weight", i, of, "float32", optimizer=0, group=0)
        for n, i, of in (("a", 0, [16, reads]), ("b", 2, [features, 16]))
    ]
    return layout(infos, weights)


def run(cka, layers=None, steps=400, **more):
    columns = {"activations.cka": cka}
    return records(1.0, steps=steps, layers=layers or shape(), columns=columns, columns_every=100, **more)


ALIKE = [0.99, 0.99, None]


def test_fires_with_the_bound_that_follows_from_the_angles():
    alert = assert_fires(SLUG, run(ALIKE), severity="info", layer=None, by=200)
    assert alert.value == pytest.approx(math.cos(2 * math.acos(0.99)), abs=1e-3)
    assert alert.title.startswith("a and b put out almost the same")


def test_quiet_where_they_differ():
    assert_quiet(SLUG, run([0.9, 0.99, None]))


def test_near_miss_both_steps_are_small_but_not_together():
    assert_quiet(SLUG, run([0.97, 0.97, None]))


def test_near_miss_a_step_between_that_was_not_measured():
    assert_quiet(SLUG, run([0.99, None, None]))


def test_near_miss_other_shapes():
    assert_quiet(SLUG, run(ALIKE, shape(features=8)))
    assert_quiet(SLUG, run(ALIKE, shape(reads=32)))
    assert_quiet(SLUG, run(ALIKE, shape(kind="Conv1d")))


def test_near_miss_once():
    assert_quiet(SLUG, run(lambda step: ALIKE if step == 200 else [0.5, 0.99, None]))
    assert_fires(
        SLUG, run(lambda step: ALIKE if step == 200 else [0.5, 0.99, None]), limits={"observations": 1}
    )


def test_near_miss_warm_up():
    warming = run(
        lambda step: ALIKE if step <= 200 else [0.5, 0.9, None], lr=lambda i: 1e-4 * min(i, 210), steps=500
    )
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


@pytest.mark.parametrize("identity", [True, False])
def test_a_real_layer_that_hands_on_its_input(identity, tmp_path):
    batch = classes()

    def make():
        model = nn.Sequential(
            nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        )
        if identity:
            nn.init.eye_(model[3].weight)
        return model

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    made = trained(
        tmp_path, make, loss, steps=120, activations_every=2,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
    )  # fmt: skip
    if identity:
        assert assert_fires(SLUG, made, severity="info").title.startswith("2 and 3")
    else:
        assert_quiet(SLUG, made)
