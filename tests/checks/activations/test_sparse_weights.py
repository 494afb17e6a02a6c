"""sparse-weights: weights that became zero, and layers that are dead."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from tests.helpers_training import classes, trained

SLUG = "sparse-weights"


def run(share, spread=0.5, steps=400, **more):
    columns = {"weight_zero_fraction": share, "activations.batch_std": spread}
    return records(1.0, steps=steps, columns=columns, columns_every=50, **more)


def becomes(share, at=200, start=0.0):
    return lambda step: [start, share if step >= at else start, start]


def test_sparse_is_noted():
    alert = assert_fires(SLUG, run(becomes(0.6)), severity="info", layer="1", since=(200, 200), by=250)
    assert alert.title == "60 % of 1.weight is zero"


def test_dead_is_a_warning():
    dead = run(becomes(0.95), spread=lambda s: [0.5, 0.5 if s < 200 else 1e-6, 0.5])
    alert = assert_fires(SLUG, dead, severity="warning", layer="1", since=(200, 200), by=250)
    assert alert.title == "Dead layer 1: 95 % of 1.weight is zero"


def test_a_sparse_layer_that_puts_out_different_things_is_not_dead():
    assert_quiet(SLUG, run(becomes(0.95)), allow_info=True)


def test_a_layer_of_zeros_from_the_start_is_dead_too():
    assert_fires(SLUG, run([0.0, 1.0, 0.0], spread=[0.5, 0.0, 0.5]), severity="warning", layer="1")


def test_quiet_below_half():
    assert_quiet(SLUG, run(becomes(0.45)))


def test_near_miss_pruned_from_the_start():
    pruned = run([0.0, 0.8, 0.0])
    assert_quiet(SLUG, pruned)
    assert_fires(SLUG, pruned, limits={"became": 0})


def test_near_miss_once():
    assert_quiet(SLUG, run(lambda step: [0.0, 0.6 if step == 200 else 0.0, 0.0]))
    assert_fires(SLUG, run(lambda step: [0.0, 0.6 if step == 200 else 0.0, 0.0]), limits={"observations": 1})


def test_near_miss_warm_up():
    warming = run(
        lambda step: [0.0, 0.6 if 1 < step <= 200 else 0.0, 0.0], lr=lambda i: 1e-4 * min(i, 160), steps=500
    )
    assert_quiet(SLUG, warming)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


def test_near_miss_embeddings_and_biases():
    base = layout()
    embeddings = [dataclasses.replace(x, type="Embedding") for x in base.layers]
    biases = [dataclasses.replace(p, shape=[16]) for p in base.parameters]
    assert_quiet(SLUG, run(becomes(1.0), layers=dataclasses.replace(base, layers=embeddings)))
    assert_quiet(SLUG, run(becomes(1.0), layers=dataclasses.replace(base, parameters=biases)))


class Shrinking(torch.optim.Optimizer):
    """Gradient descent with an L1 proximal step."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.05, "shrink": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                moved = p - group["lr"] * p.grad
                p.copy_(moved.sign() * (moved.abs() - group["shrink"]).clamp(min=0))


@pytest.mark.parametrize("shrink", [0.05, 0.0])
def test_a_real_penalty_that_kills_a_layer(shrink, tmp_path):
    batch = classes()

    def optimizer(model):
        others = [p for name, p in model.named_parameters() if name != "2.weight"]
        return Shrinking([{"params": [model[2].weight], "shrink": shrink}, {"params": others}])

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    def make():
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))

    made = trained(tmp_path, make, loss, steps=200, activations_every=5, optimizer=optimizer)
    if shrink:
        assert_fires(SLUG, made, severity="warning", layer="2")
    else:
        assert_quiet(SLUG, made)
