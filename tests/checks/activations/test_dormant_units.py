"""dormant-units: units that are hardly ever active."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo

SLUG = "dormant-units"


def shape(units=16):
    return [
        LayerInfo("fc1", "Linear", 256, order=0, inputs=[[32, 16]], outputs=[[32, units]]),
        LayerInfo("act", "ReLU", order=1, inputs=[[32, units]], outputs=[[32, units]]),
        LayerInfo("fc2", "Linear", 64, order=2, inputs=[[32, units]], outputs=[[32, 4]]),
    ]


def run(dormant, layers=None, steps=200, **more):
    columns = {"activations.dormant_fraction": dormant, **more.pop("columns", {})}
    return records(1.0, steps=steps, layers=layers or shape(), columns=columns, columns_every=10, **more)


def from_step(step, row=(0.0, 0.7, 0.7)):
    return lambda i: list(row) if i >= step else [0.0, 0.1, 0.1]


def test_fires_as_an_info_with_onset():
    alert = assert_fires(SLUG, run(from_step(51)), severity="info", layer=None, since=(51, 51), by=150)
    assert alert.title == "70 % of the units of act are dormant"
    assert "fed by fc1" in alert.detail


def test_quiet_on_a_few():
    assert_quiet(SLUG, run([0.0, 0.4, 0.4]))


def test_near_miss_one_interval():
    one = run(lambda i: [0.0, 0.7 if 50 < i <= 100 else 0.1, 0.0])
    assert_quiet(SLUG, one)
    assert_fires(SLUG, one, limits={"intervals": 1})


def test_near_miss_dead_already():
    dead = run([0.0, 0.7, 0.7], columns={"activations.dead_fraction": [0.0, 0.6, 0.6]})
    assert_quiet(SLUG, dead)
    assert_fires(SLUG, dead, limits={"dead": 0})


def test_near_miss_few_units():
    assert_quiet(SLUG, run([0.0, 0.7, 0.7], shape(4)))
    assert_fires(SLUG, run([0.0, 0.7, 0.7], shape(4)), limits={"least_units": 0})


def test_near_miss_raw_inputs_and_the_end_of_the_model():
    assert_quiet(SLUG, run([0.7, 0.0, 0.0]))
    last = [dataclasses.replace(x, parameters=0) if x.name == "fc2" else x for x in shape()]
    assert_quiet(SLUG, run([0.0, 0.7, 0.0], last))


def test_near_miss_a_flattened_image():
    image = [
        LayerInfo("conv", "Conv2d", 256, order=0, inputs=[[32, 1, 8, 8]], outputs=[[32, 16, 4, 4]]),
        LayerInfo("head", "Linear", 256, order=1, inputs=[[32, 256]], outputs=[[32, 10]]),
    ]
    assert_quiet(SLUG, run([0.0, 0.7], image))
    pooled = [image[0], dataclasses.replace(image[1], inputs=[[32, 16]])]
    assert_fires(SLUG, run([0.0, 0.7], pooled))


def test_near_miss_warm_up():
    warming = run(lambda i: [0.0, 0.7 if i <= 100 else 0.1, 0.0], lr=lambda i: 1e-4 * min(i, 120), steps=300)
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


@pytest.mark.parametrize("scaled", [True, False])
def test_a_real_layer_that_was_badly_scaled(scaled, tmp_path):
    batch = classes()

    def make():
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
        with torch.no_grad():
            if scaled:
                model[0].weight[:24] *= 1e-3
                model[0].bias[:24] = 0
                model[2].weight[:, :24] *= 1e-3
        return model

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    made = trained(
        tmp_path, make, loss, steps=150, activations_every=2,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.02),
    )  # fmt: skip
    if scaled:
        assert "75 %" in assert_fires(SLUG, made, severity="info").title
    else:
        assert_quiet(SLUG, made)
