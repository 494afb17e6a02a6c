"""input-nonfinite: NaN and infinity in what the model is given."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from tests.checks.wiring.trainings import EVERY, Fit, alerts, batch, entropy, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "input-nonfinite"


def tensor(bad=0, name="0", low=-2.0, high=2.0):
    return {"name": name, "shape": [8, 4], "dtype": "float32", "low": low, "high": high, "nonfinite": bad}


def given(bad, steps=100, tensors=None, **more):
    """A run in which these steps hold non-finite inputs (step → count)."""

    def inputs(step):
        count = bad.get(step, 0)
        some = [tensor(count, high=math.nan)] if tensors is None else tensors(step)
        return {"passes": 1, "batch": 8, "nonfinite": sum(t["nonfinite"] for t in some), "tensors": some}

    kept = {"loss": lambda n: math.nan if n in bad else 1.0, "grad_norm": 0.3} | more
    return records(steps=steps, inputs=inputs, **kept)


def test_fires_at_that_step_and_names_input_and_batch():
    run = given({30: 5}, fingerprint=lambda n: f"{n:08x}")
    alert = assert_fires(SLUG, run, severity="critical", layer=None, since=(30, 30), by=30)
    assert "Input 0 holds 5 non-finite entries at step 30, batch 0000001e" in alert.title
    assert "loss of that step is not finite" in alert.detail


def test_fires_within_a_line_of_many_steps_at_the_first_of_them():
    assert_fires(SLUG, given({30: 5, 41: 1}, batched=50), since=(30, 30), by=50)


def test_resolved_after_fifty_clean_steps():
    _, found = run_check(SLUG, given({30: 5}))
    assert [(a.state, a.step) for a in found] == [("opened", 30), ("resolved", 80)]


@pytest.mark.parametrize(
    "harm",
    [{"grad_norm": lambda n: math.inf if n == 30 else 0.3}, {"grad_norm": None, "loss": None}],
    ids=["gradients", "nothing measured"],
)
def test_other_harm_is_critical_too(harm):
    assert_fires(SLUG, given({30: 5}, **({"loss": 1.0} | harm)), severity="critical")


def test_weights_that_are_ruined_are_critical():
    first = {"where": "optimizer", "name": "0.weight", "order": None, "seen_by": "statistics"}
    run = given({30: 5}, loss=1.0, first_nonfinite=lambda n: first if n == 30 else None)
    assert_fires(SLUG, run, severity="critical")


@pytest.mark.parametrize("where", ["input", "forward"])
def test_what_the_sentinel_found_between_two_samples(where):
    first = {"where": where, "name": "x", "order": None, "seen_by": "sentinel"}
    run = records(
        steps=60,
        loss=lambda n: math.nan if n == 33 else 1.0,
        inputs=lambda n: {"nonfinite": 0, "tensors": [tensor()]} if n % 10 == 0 else None,
        first_nonfinite=lambda n: first if n == 33 else None,
    )
    if where != "input":
        assert_quiet(SLUG, run)
        return
    alert = assert_fires(SLUG, run, severity="critical", since=(33, 33), by=33)
    assert "Input x holds NaN or infinity" in alert.title


def test_quiet_on_finite_inputs():
    assert_quiet(SLUG, given({}))


def test_near_miss_a_model_that_copes():
    run = given({30: 5}, loss=1.0)
    assert_fires(SLUG, run, severity="info")
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="critical", limits={"harm": 0})


def test_near_miss_a_scaler_skipped_the_step():
    run = given({30: 5}, skipped=lambda n: n == 30)
    assert "was skipped" in assert_fires(SLUG, run, severity="info").detail
    assert_quiet(SLUG, run, allow_info=True)


@pytest.mark.parametrize(
    ("low", "high", "name", "quiet"),
    [
        (-math.inf, 0.0, "1", True),
        (-math.inf, 3.0, "attention_mask", True),
        (-math.inf, 3.0, "1", False),
        (-math.inf, math.inf, "attention_mask", False),
        (math.nan, math.nan, "attention_mask", False),
    ],
)
def test_near_miss_minus_infinity_in_a_mask(low, high, name, quiet):
    run = given({}, tensors=lambda _: [tensor(), tensor(12, name, low, high)])
    if quiet:
        assert_quiet(SLUG, run)
        assert_fires(SLUG, run, limits={"masks": 0})
    else:
        assert_fires(SLUG, run, severity="info")


def test_limit_of_entries():
    assert_quiet(SLUG, given({30: 5}), limits={"entries": 6})


# ------------------------------------------------------------------------------------------ real trainings


def spoiled(at, value):
    def data(number):
        x, y = batch()
        if number == at:
            x[0, 0] = value
        return x, y

    return data


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("config", [{}, {"config": EVERY}])
def test_one_bad_value(tmp_path, value, config):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, data=spoiled(7, value), steps=12), **config)
    alert = opened(found, SLUG)
    assert (alert.severity, alert.since_step, alert.step, alert.root) == ("critical", 7, 7, True)


def test_the_sentinel_sees_it_between_two_samples(tmp_path):
    model = net()
    config = dataclasses.replace(EVERY, activations_every=10)
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, data=spoiled(17, math.nan), steps=20), config)
    assert opened(found, SLUG).since_step == 17


def test_quiet_on_its_twin(tmp_path):
    model = net()
    assert loud(alerts(tmp_path / "r.jsonl", model, Fit(model), EVERY)) == []


def test_a_model_that_fills_in_missing_values_is_only_told(tmp_path):
    class Filling(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            return self.inner(x.nan_to_num())

    model = Filling()
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, data=spoiled(7, math.nan)))
    assert loud(found) == []
    assert said(found, SLUG) != []


def test_quiet_on_a_causal_mask(tmp_path):
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 4)

        def forward(self, x, mask):
            return self.head(self.layer(x, src_mask=mask).mean(1))

    torch.manual_seed(0)
    model = Attending()
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    body = Fit(
        model,
        data=lambda _: (torch.randn(16, 3, 8), torch.randint(0, 4, (16,))),
        loss=lambda model, x, y: entropy(lambda x: model(x, mask), x, y),
    )
    found = alerts(tmp_path / "r.jsonl", model, body)
    assert said(found, SLUG) == []
