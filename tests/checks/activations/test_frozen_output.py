"""frozen-output: the same whatever goes in."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo

SLUG = "frozen-output"


def shape(batch=32, features=4):
    return [
        LayerInfo(str(i), "Linear", 256, order=i, inputs=[[batch, features]], outputs=[[batch, features]])
        for i in range(3)
    ]


def given(batch=32, low=-1.0, high=1.0):
    return {"batch": batch, "tensors": [{"name": "0", "low": low, "high": high}]}


def run(spread, rms=1.0, layers=None, steps=150, **more):
    columns = {"activations.batch_std": spread, "activations.rms": rms}
    inputs = more.pop("inputs", given())
    return records(
        1.0, steps=steps, layers=layers or shape(), columns=columns, columns_every=10,
        inputs=inputs, fingerprint=more.pop("fingerprint", lambda i: f"{i:08x}"), **more,
    )  # fmt: skip


def test_fires_where_the_output_never_depends_on_the_input():
    alert = assert_fires(SLUG, run([0.5, 0.5, 2e-7]), severity="warning", layer="2", since=(1, 1), by=50)
    assert "from the start" in alert.detail


def test_fires_where_everything_is_constant_though_the_inputs_differ():
    assert_fires(SLUG, run(0.0), layer="2")


def test_fires_where_a_small_layer_freezes_later_and_only_there():
    def spread(step):
        return [0.5, 0.5, 0.5] if step <= 50 else [0.5, 0.0, 0.0]

    alert = assert_fires(SLUG, run(spread), layer="1", since=(51, 60), by=100)
    assert "once put out different things" in alert.detail
    assert {a.layer for a in run_check(SLUG, run(spread))[1]} == {"1"}


def test_a_zero_start_is_no_frozen_wiring():
    """A last layer that starts at zero, learns, and freezes later is not called frozen from the start."""

    def spread(step):
        return [0.5, 0.5, 0.5 if 20 <= step <= 50 else 0.0]

    assert (
        "once put out different things" in assert_fires(SLUG, run(spread), layer="2", since=(51, 60)).detail
    )


def test_quiet_on_outputs_that_differ():
    assert_quiet(SLUG, run([0.5, 0.5, 1e-4]))


def test_near_miss_inner_layers_that_never_saw_the_input():
    assert_quiet(SLUG, run([0.5, 0.0, 0.5]))


def test_near_miss_large_layers_belong_to_collapse():
    def spread(step):
        return [0.5, 0.5, 0.5] if step <= 50 else [0.5, 0.0, 0.5]

    assert_quiet(SLUG, run(spread, layers=shape(features=64)))


def test_near_miss_two_observations_of_an_interval():
    two = run(lambda step: [0.5, 0.5, 0.0 if step % 50 in (40, 0) else 0.5])
    assert_quiet(SLUG, two)


@pytest.mark.parametrize(
    "same", [{"fingerprint": "00000001"}, {"inputs": given(low=1.0)}], ids=["one batch", "constant"]
)
def test_near_miss_the_inputs_are_the_same(same):
    assert_quiet(SLUG, run(0.0, **same))
    assert_fires(SLUG, run(0.0, **same), limits={"inputs": 0})


def test_near_miss_batches_of_one():
    assert_quiet(SLUG, run(0.0, inputs=given(batch=1), layers=shape(batch=1)))


def test_near_miss_zeros_before_it_are_dead_units():
    dead = run([0.5, 0.0, 0.0], rms=[1.0, 0.0, 1.0])
    assert_quiet(SLUG, dead)
    assert_fires(SLUG, dead, limits={"dead": 0}, layer="2")


def test_near_miss_warm_up():
    warming = run(
        lambda step: [0.5, 0.5, 0.0 if step <= 100 else 0.5], lr=lambda i: 1e-4 * min(i, 110), steps=200
    )
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


class Overwrites(nn.Module):
    """Two layers; its input may get lost on the way."""

    def __init__(self, *, loses):
        super().__init__()
        self.first, self.head, self.loses = nn.Linear(20, 32), nn.Linear(32, 4), loses

    def forward(self, x):
        x = torch.zeros_like(x) if self.loses else x
        return self.head(functional.relu(self.first(x)))


@pytest.mark.parametrize("loses", [True, False])
def test_a_real_model_that_loses_its_input(loses, tmp_path):
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    made = trained(tmp_path, lambda: Overwrites(loses=loses), loss, steps=100)
    if loses:
        assert_fires(SLUG, made, severity="warning", layer="head", by=50)
        assert {a.layer for a in run_check(SLUG, made)[1]} == {"head"}
    else:
        assert_quiet(SLUG, made)
