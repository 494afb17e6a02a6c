"""input-scale: inputs far from zero mean and unit variance."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.checks.wiring.trainings import EVERY, Fit, alerts, batch, loud, net, opened, said, sgd
from tests.helpers_checks import assert_fires, assert_quiet, layout, records

SLUG = "input-scale"


def tensor(mean=0.0, std=1.0, name="0", shape=(8, 4)):
    return {"name": name, "shape": list(shape), "dtype": "float32", "mean": mean, "std": std, "nonfinite": 0}


def given(*tensors, steps=200, every=1, source=None, **more):
    """A run whose inputs are like this."""
    held = {"passes": 1, "nonfinite": 0, "tensors": list(tensors)} | ({"source": source} if source else {})

    def inputs(step):
        return held | {"batch": step} if step <= 10 or step % every == 0 else None

    return records(steps=steps, inputs=inputs, **more)


@pytest.mark.parametrize(
    ("mean", "std", "metric"),
    [
        (5.1, 1.0, "inputs.mean"),
        (-80.0, 5.0, "inputs.mean"),
        (0.1, 10.1, "inputs.std"),
        (0, 0.009, "inputs.std"),
    ],
)
def test_fires_at_the_twentieth_step(mean, std, metric):
    run = given(tensor(mean, std), every=10)
    alert = assert_fires(SLUG, run, severity="info", layer=None, since=(1, 1), by=20)
    assert alert.metric == metric
    assert alert.step == 20


def test_short_intervals_do_not_hasten_it():
    assert assert_fires(SLUG, given(tensor(mean=100), interval_steps=8)).step == 20


def test_fires_within_a_line_of_many_steps():
    assert_fires(SLUG, given(tensor(mean=100), batched=50), since=(1, 1), by=50)


def test_the_input_that_is_furthest_off_is_named():
    run = given(tensor(), tensor(mean=20, name="x"), tensor(std=1000, name="y"))
    assert "Input y has mean 0 and standard deviation 1000" in assert_fires(SLUG, run).title


def test_batches_of_different_levels_count_together():
    def inputs(step):
        return {"nonfinite": 0, "tensors": [tensor(mean=20.0 * (-1) ** step)]}

    assert_fires(SLUG, records(steps=60, inputs=inputs), severity="info", by=20)


def test_a_warning_where_the_loss_never_fell():
    run = given(tensor(mean=100), steps=700, loss=lambda n: 2.77 + 0.001 * (n % 7), interval_steps=50)
    alert = assert_fires(SLUG, run, severity="warning")
    assert "the loss has not fallen" in alert.detail


def test_quiet_on_the_usual_scale():
    assert_quiet(SLUG, given(tensor(mean=0.5, std=0.3), tensor(mean=-4.9, std=9.9), tensor(0, 0.011)))


@pytest.mark.parametrize(
    "near",
    [
        given({"name": "ids", "shape": [8, 4], "dtype": "int64", "low": 0, "high": 50_000}),
        given(tensor(), tensor(mean=500, name="t", shape=(8,))),
        given(tensor(), tensor(mean=-1e9, std=1e9, name="attention_mask")),
        given(tensor(), tensor(std=0.0, name="state")),
        given(tensor(), tensor(mean=300, name="1"), source="batches"),
        given({"name": "x", "shape": [8, 4], "dtype": "bool"}),
        given(tensor(mean=float("nan"), std=float("nan"))),
    ],
    ids=["whole numbers", "one axis", "mask", "empty state", "a loader's targets", "bool", "nan"],
)
def test_near_misses(near):
    assert_quiet(SLUG, near)


def test_near_miss_the_first_layer_is_a_norm():
    base = layout(["flat", "norm", "2"])
    kinds = ["Flatten", "BatchNorm1d", "Linear"]
    layers = [dataclasses.replace(x, type=k) for x, k in zip(base.layers, kinds, strict=True)]
    run = given(tensor(mean=100), layers=dataclasses.replace(base, layers=layers))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"norm_first": 0})
    layers = [
        dataclasses.replace(x, type=k)
        for x, k in zip(base.layers, ["Flatten", "Linear", "LayerNorm"], strict=True)
    ]
    assert_fires(SLUG, given(tensor(mean=100), layers=dataclasses.replace(base, layers=layers)))


def test_not_ready_before_enough_was_seen():
    assert_quiet(SLUG, given(tensor(mean=100), steps=19), ready=False)
    sparse = records(
        steps=200, inputs=lambda n: {"tensors": [tensor(mean=100)], "batch": n} if n % 50 == 0 else None
    )
    assert_quiet(SLUG, sparse, ready=False)
    assert_fires(SLUG, sparse, limits={"looks": 4})


@pytest.mark.parametrize(
    ("limits", "odd"),
    [
        ({"mean": 0}, tensor(mean=100)),
        ({"std_high": 0}, tensor(std=100)),
        ({"std_low": 0}, tensor(std=0.001)),
    ],
)
def test_limits_of_scale(limits, odd):
    assert_fires(SLUG, given(odd))
    assert_quiet(SLUG, given(odd), limits=limits)


# ------------------------------------------------------------------------------------------ real trainings


def pixels(_):
    x, y = batch()
    return (60 * x + 120).clamp(0, 255), y


def test_pixels_that_nobody_scaled(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, sgd(model, lr=1e-5), data=pixels), EVERY)
    alert = opened(found, SLUG)
    assert (alert.severity, alert.since_step) == ("info", 1)
    assert alert.step <= 22


def test_quiet_on_its_twins(tmp_path):
    """The same pixels divided, and the same pixels into a norm."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    body = Fit(model, data=lambda n: (pixels(n)[0] / 255, pixels(n)[1]))
    assert said(alerts(tmp_path / "a.jsonl", model, body), SLUG) == []
    model = nn.Sequential(nn.BatchNorm1d(8), *net())
    found = alerts(tmp_path / "b.jsonl", model, Fit(model, data=pixels))
    assert said(found, SLUG) == []
    assert loud(found) == []
