"""saturated-activations: sigmoids and tanhs at their bounds."""

import dataclasses

import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import noise, trained
from torchwatch.records import LayerInfo, OptimizerInfo, ParameterInfo

SLUG = "saturated-activations"


def shape(kind="Tanh", name="act"):
    return [
        LayerInfo("fc1", "Linear", 256, order=0, inputs=[[32, 16]], outputs=[[32, 16]]),
        LayerInfo(name, kind, order=1, inputs=[[32, 16]], outputs=[[32, 16]]),
        LayerInfo("fc2", "Linear", 64, order=2, inputs=[[32, 16]], outputs=[[32, 4]]),
    ]


def run(share, layers=None, steps=200, loss=1.0, **more):
    columns = {"activations.saturated_fraction": share}
    return records(loss, steps=steps, layers=layers or shape(), columns=columns, columns_every=10, **more)


def from_step(step, share=0.8):
    return lambda i: [None, share if i >= step else 0.1, None]


def test_fires_with_layer_and_onset():
    alert = assert_fires(SLUG, run(from_step(51)), severity="warning", layer="act", since=(51, 51), by=150)
    assert alert.title == "80 % of the outputs of act (Tanh) are at their bounds"


def test_quiet_below_half():
    assert_quiet(SLUG, run([None, 0.45, None]))


def test_near_miss_one_interval():
    one = run(lambda i: [None, 0.8 if 50 < i <= 100 else 0.1, None])
    assert_quiet(SLUG, one)
    assert_fires(SLUG, one, limits={"intervals": 1})


@pytest.mark.parametrize(
    "layers",
    [
        shape(name="block.gate"),
        shape("Sigmoid")[:2],
        [*shape()[:2], dataclasses.replace(shape()[2], inputs=[[32, 16, 8, 8]])],
    ],
    ids=["named", "at the end", "not read as it is"],
)
def test_near_miss_gates_and_outputs(layers):
    assert_quiet(SLUG, run([None, 0.8, None][: len(layers)], layers))
    assert_fires(SLUG, run([None, 0.8, None][: len(layers)], layers), limits={"gates": 0})


def test_near_miss_what_reads_it_is_trained_by_another_optimizer():
    weights = [
        ParameterInfo(f"{n}.weight", i, [16, 16], "float32", optimizer=o, group=0)
        for n, i, o in (("fc1", 0, 0), ("fc2", 2, 1))
    ]
    two = layout(shape(), weights)
    two.optimizers.append(OptimizerInfo("SGD", [{"lr": 0.1}]))
    assert_quiet(SLUG, run([None, 0.8, None], two))


def test_hard_functions_are_left_out():
    assert_quiet(SLUG, run([None, 0.8, None], shape("Hardtanh")))


def test_near_miss_the_loss_is_at_its_best():
    learns = run(from_step(31), loss=lambda i: 3.0 - i / 100)
    assert_quiet(SLUG, learns, allow_info=True)
    assert_fires(SLUG, learns, severity="info")
    assert_fires(SLUG, learns, severity="warning", limits={"best_loss": 0})


def test_what_began_at_its_bounds_is_a_warning_though_the_loss_falls():
    assert_fires(SLUG, run([None, 0.8, None], loss=lambda i: 3.0 - i / 100), severity="warning", by=100)
    left = run(lambda i: [None, 0.1 if 50 < i <= 100 else 0.8, None], loss=lambda i: 3.0 - i / 100)
    assert_quiet(SLUG, left, allow_info=True)


def test_near_miss_warm_up():
    warming = run(
        lambda i: [None, 0.8 if i <= 100 else 0.1, None], lr=lambda i: 1e-4 * min(i, 120), steps=300
    )
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


@pytest.mark.parametrize("scale", [100.0, 1.0])
def test_real_inputs_that_are_not_normalised(scale, tmp_path):
    batch = noise()

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x * scale), y)

    def make():
        return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))

    made = trained(tmp_path, make, loss, steps=150, activations_every=5)
    if scale > 1:
        assert_fires(SLUG, made, severity="warning", layer="1")
        assert {a.layer for a in run_check(SLUG, made)[1]} == {"1"}
    else:
        assert_quiet(SLUG, made)
