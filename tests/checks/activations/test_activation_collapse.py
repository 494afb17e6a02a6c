"""activation-collapse: the same output for every sample."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo

SLUG = "activation-collapse"


def run(batch_std, std=0.5, rms=1.0, steps=400, layers=("0", "1", "2"), **more):
    columns = {"activations.batch_std": batch_std, "activations.std": std, "activations.rms": rms}
    return records(steps=steps, layers=layers, columns=columns, columns_every=10, **more)


def falls(at, low=1e-5, which=(1,)):
    return lambda step: [low if step >= at and i in which else 0.4 for i in range(3)]


def test_fires_after_three_intervals_with_layer_and_onset():
    alert = assert_fires(SLUG, run(falls(151)), severity="warning", layer="1", since=(151, 151), by=300)
    assert "it once was 0.4" in alert.detail


def test_of_a_chain_only_the_first_is_named():
    _, alerts = run_check(SLUG, run(falls(151, which=(1, 2))))
    assert {a.layer for a in alerts} == {"1"}


def test_a_saturated_layer_has_no_spread_at_all():
    assert_fires(SLUG, run(falls(151, low=0.0), std=lambda s: [0.5, 0.0 if s > 150 else 0.5, 0.5]), layer="1")


def test_quiet_on_outputs_that_differ():
    assert_quiet(SLUG, run(0.3))


def test_near_miss_two_intervals():
    assert_quiet(SLUG, run(lambda step: [0.4, 1e-5 if 150 < step <= 250 else 0.4, 0.4]))


def test_near_miss_small_against_the_mean_but_all_the_spread_there_is():
    offset = run(falls(151, low=8e-4), std=1e-3)
    assert_quiet(SLUG, offset)
    assert_fires(SLUG, offset, limits={"cosine": 0})


def test_near_miss_constant_from_the_start_by_design():
    assert_quiet(SLUG, run([0.4, 1e-6, 0.4]))
    assert_fires(SLUG, run([0.4, 1e-6, 0.4]), limits={"once": 0}, layer="1", since=(1, 1))


def test_near_miss_zero_everywhere_is_dead_not_collapsed():
    assert_quiet(SLUG, run(falls(151, low=0.0), rms=lambda s: [1.0, 0.0 if s > 150 else 1.0, 1.0]))


@pytest.mark.parametrize("kind", ["Embedding", "BatchNorm1d", "LayerNorm"])
def test_near_miss_embeddings_and_norms(kind):
    base = layout()
    shape = dataclasses.replace(base, layers=[dataclasses.replace(x, type=kind) for x in base.layers])
    assert_quiet(SLUG, run(falls(151), layers=shape))


@pytest.mark.parametrize(("shape", "guard"), [([4, 64], "samples"), ([64, 8], "features")])
def test_near_miss_few_samples_or_features(shape, guard):
    infos = [LayerInfo(str(i), "Linear", 256, order=i, inputs=[shape], outputs=[shape]) for i in range(3)]
    assert_quiet(SLUG, run(falls(151), layers=infos))
    assert_fires(SLUG, run(falls(151), layers=infos), limits={guard: 0}, layer="1")


def test_near_miss_warm_up():
    run_up = run(lambda step: [0.4, 1e-5 if 10 < step <= 200 else 0.4, 0.4], lr=lambda i: 1e-4 * min(i, 160))
    assert_quiet(SLUG, run_up)
    assert_fires(SLUG, run_up, limits={"warm_up": 0}, layer="1")


def test_near_miss_dead_units_explain_it():
    def shares(step):
        return [0.0, 0.9 if step >= 230 else 0.0, 0.0]

    columns = {
        "activations.batch_std": falls(151, which=(1, 2)),
        "activations.std": 0.5,
        "activations.rms": 1.0,
        "activations.dead_fraction": shares,
    }
    dead = records(steps=400, samples=64, columns=columns, columns_every=10)
    assert_quiet(SLUG, dead)
    assert_fires(SLUG, dead, layer="1", limits={"dead_units": 0}, by=300)


def test_waits_until_dead_units_could_be_told():
    columns = {
        "activations.batch_std": falls(151),
        "activations.std": 0.5,
        "activations.rms": 1.0,
        "activations.dead_fraction": [0.9, 0.0, 0.0],
    }
    run_small = records(steps=800, samples=16, columns=columns, columns_every=10)
    alert = assert_fires(SLUG, run_small, layer="1", since=(151, 151))
    assert alert.step == 500  # the 33rd sampled step of 16 since then is 480, the interval ends at 500


def test_stays_open_when_the_good_times_are_forgotten():
    _, alerts = run_check(SLUG, run(falls(151), steps=2500))
    assert "resolved" not in {a.state for a in alerts}
    assert {a.layer for a in alerts} == {"1"}


def test_limits():
    assert_quiet(SLUG, run(falls(151, low=5e-4)), limits={"batch_std": 1e-4})
    assert_quiet(SLUG, run(falls(151)), limits={"intervals": 6})
    assert_fires(SLUG, run(falls(151)), limits={"intervals": 1}, by=200)


def with_cosine(cosine, std=0.5, low=1e-5):
    columns = {
        "activations.batch_std": falls(151, low=low),
        "activations.std": std,
        "activations.rms": 1.0,
        "activations.cosine": cosine,
    }
    return records(steps=400, columns=columns, columns_every=10)


def test_the_measured_cosine_decides():
    alert = assert_fires(SLUG, with_cosine([0.1, 0.9999, 0.1]), layer="1", by=300)
    assert "Mean cosine of two samples 0.9999, measured" in alert.detail
    assert_quiet(SLUG, with_cosine([0.1, 0.99, 0.1]))
    assert_fires(SLUG, with_cosine([0.1, 0.9999, 0.1], std=1e-3, low=8e-4), layer="1")


def test_where_no_cosine_was_measured_it_is_estimated():
    assert_fires(SLUG, with_cosine(lambda s: [0.1, 0.9999 if s == 200 else None, 0.1]), layer="1", by=300)
    assert_quiet(SLUG, with_cosine(lambda s: [0.1, 0.9999 if s == 200 else None, 0.1], std=1e-3, low=8e-4))


@pytest.mark.parametrize("decay", [0.1, 0.0])
def test_a_real_decay_that_leaves_only_the_biases(decay, tmp_path):
    batch = classes()

    def loss(model, step):
        x = batch(step)[0]
        generator = torch.Generator().manual_seed(step)
        one, other = (model(x + 0.3 * torch.randn(x.shape, generator=generator)) for _ in range(2))
        return functional.mse_loss(one, other)

    def optimizer(model):
        weights, biases = [model[0].weight, model[2].weight], [model[0].bias, model[2].bias]
        return torch.optim.SGD([{"params": weights, "weight_decay": decay}, {"params": biases}], lr=0.5)

    made = trained(
        tmp_path, lambda: nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64)), loss,
        activations_every=5, optimizer=optimizer,
    )  # fmt: skip
    if decay:
        assert "measured" in assert_fires(SLUG, made, severity="warning", layer="2").detail
    else:
        assert_quiet(SLUG, made)
