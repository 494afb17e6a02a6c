"""vanishing-gradients: the first layers do not learn."""

import dataclasses

import numpy as np
import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained

SLUG = "vanishing-gradients"
FOUR = tuple(str(i) for i in range(4))
DEEP = [1.6e-9 * 16, 1.6e-7 * 16 / 20, 1e-4, 1.0]
"""Gradient norms of four 16×16 layers; RMS = norm / 16."""


def run(norms=DEEP, ratios=(1e-11, 1e-10, 1e-5, 1e-3), loss=2.3, steps=200, layers=FOUR, **more):
    columns = {"grad_norms": norms, "update_ratios": list(ratios), "weight_norms": 4.0}
    return records(loss, steps=steps, layers=layers, columns=columns, **more)


def test_fires_after_two_intervals_and_names_the_first_layer():
    alert = assert_fires(SLUG, run(), severity="warning", layer="0", since=(1, 1), by=100)
    assert alert.value == pytest.approx(1.6e-9, rel=1e-3)
    assert "1 more layers (1)" in alert.detail


def test_dates_a_layer_that_vanishes_in_mid_run():
    def norms(step):
        return DEEP if step > 100 else [1e-2, 1e-2, 0.1, 1.0]

    assert_fires(
        SLUG, run(norms, loss=lambda i: 1.0 if i < 100 else 2.0), layer="0", since=(101, 101), by=200
    )


def test_fires_on_the_ratio_of_first_to_last_layer():
    small = [16 * 2e-6, 0.1, 0.1, 1.0]  # RMS 2e-6 against 0.0625 and a weight RMS of 0.25
    assert_fires(SLUG, run(small, (1e-8, 1e-4, 1e-4, 1e-3)), layer="0", by=100)
    assert_quiet(SLUG, run([16 * 1e-4, 0.1, 0.1, 1.0], (1e-8, 1e-4, 1e-4, 1e-3)))


def test_one_issue_while_other_layers_come_and_go():
    def norms(step):
        return [DEEP[0], 1e-9 if step // 50 % 2 else 1.0, 1e-4, 1.0]

    _, alerts = run_check(SLUG, run(norms, steps=600))
    assert {a.layer for a in alerts} == {"0"}


def test_quiet_on_healthy_gradients():
    assert_quiet(SLUG, run([0.1, 0.1, 0.1, 0.1], [1e-3] * 4))


def test_near_miss_adam_rescales_tiny_gradients():
    healthy = run([1e-9, 1e-9, 1e-9, 1e-9], [1e-3] * 4)
    assert_quiet(SLUG, healthy)
    assert_fires(SLUG, healthy, limits={"update_ratio": 0})


def test_near_miss_a_run_that_has_converged():
    def norms(step):
        return [10.0 ** (-step / 10)] * 4

    converged = run(norms, [1e-9] * 4, loss=lambda i: 0.3 + 2.0 * np.exp(-i / 10), steps=300)
    assert_quiet(SLUG, converged)
    assert_fires(SLUG, converged, limits={"healthy_factor": 0})


def test_near_miss_the_loss_is_at_its_floor():
    at_floor = run(loss=lambda i: 2.0 if i < 50 else 1e-3)
    assert_quiet(SLUG, at_floor)
    assert_fires(SLUG, at_floor, limits={"converged_share": 0}, layer="0")


def test_near_miss_the_learning_rate_has_decayed():
    decayed = run(lr=lambda i: 0.1 if i <= 20 else 1e-4, loss=2.3)
    assert_quiet(SLUG, decayed)
    assert_fires(SLUG, decayed, limits={"lr_share": 0}, layer="0")


def test_near_miss_warm_up():
    warming = run(lr=lambda i: 1e-6 * i)
    assert_quiet(SLUG, warming, ready=False)
    assert_fires(SLUG, warming, limits={"warm_up": 0})


def test_frozen_layers_and_embeddings_and_exact_zeros_never():
    base = layout(FOUR)
    frozen = [dataclasses.replace(p, trainable=p.layer > 1) for p in base.parameters]
    embeddings = [dataclasses.replace(x, type="Embedding") if i < 2 else x for i, x in enumerate(base.layers)]
    assert_quiet(SLUG, run(layers=dataclasses.replace(base, parameters=frozen)))
    assert_quiet(SLUG, run(layers=dataclasses.replace(base, layers=embeddings)))
    assert_quiet(SLUG, run([0.0, 0.0, 0.1, 1.0]))
    assert_quiet(SLUG, run([None, None, 0.1, 1.0]))


def test_limits():
    assert_quiet(SLUG, run(), limits={"rms": 1e-10, "first_to_last": 1e-10})
    assert_quiet(SLUG, run(), limits={"rms": 0, "gradient_to_weight": 1e-12})
    assert_quiet(SLUG, run(), limits={"intervals": 5}, ready=False)
    assert_fires(SLUG, run(), limits={"intervals": 1}, by=50)
    assert_fires(
        SLUG, run([0.1] * 4, [1e-3] * 4), limits={"rms": 1.0, "update_ratio": 0.1, "healthy_factor": 0}
    )


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.ReLU])
def test_a_real_deep_network(kind, tmp_path):
    """Ten layers of sigmoids, each of which passes at most a quarter on."""
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    def make():
        widths = [20, *[32] * 10]
        layers = [layer for i in range(10) for layer in (nn.Linear(widths[i], widths[i + 1]), kind())]
        for layer in layers[::2]:
            nn.init.kaiming_normal_(layer.weight) if kind is nn.ReLU else nn.init.xavier_normal_(layer.weight)
        return nn.Sequential(*layers, nn.Linear(32, 4))

    made = trained(tmp_path, make, loss, steps=150)
    if kind is nn.Sigmoid:
        assert_fires(SLUG, made, severity="warning", layer="0", by=150)
    else:
        assert_quiet(SLUG, made)
