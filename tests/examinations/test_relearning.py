import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations._reference_learner import Reference, features
from torchwatch.examinations._training import start_anew
from torchwatch.postmortem import autopsy

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(400, 6, generator=DRAW)
Y = (X[:, :1] * X[:, 1:2]) + 0.3 * torch.randn(400, 1, generator=DRAW)


def relearned(model, data=(X[300:], Y[300:]), train=(X[:300], Y[:300]), **known):
    return autopsy(model, data, train_data=train, examine=["relearning"], **known)["relearning"]


def network(width=32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 1))


def trained(model, steps, rate=0.01):
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        nn.functional.mse_loss(model(X[:300]), Y[:300]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient, monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._training._MOST_STEPS", 50)
    model, data = admit(patient)
    with assert_untouched(model):
        result = autopsy(model, data, examine=["relearning"])["relearning"]
    assert result.own_split
    assert result.attempts[0].name == "patient"
    assert result.attempts[0].gain == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_targets_that_are_no_numbers_are_left_out(value, monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._training._MOST_STEPS", 50)
    y = Y.clone()
    y[[5, 310, 320]] = value
    result = relearned(network(), (X[300:], y[300:]), (X[:300], y[:300]))
    assert (result.trained_on, result.tested_on) == (299, 98)
    assert all(math.isfinite(a.error) for a in result.attempts)
    outcome = autopsy(network(), (X, Y * math.nan), examine=["relearning"]).outcomes[0]
    assert outcome.status == "skipped"
    assert "too few" in outcome.reason


def test_a_gap_in_one_input_stops_no_learning(monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._training._MOST_STEPS", 50)
    x = X.clone()
    x[3, 2] = math.nan
    result = relearned(network(), train=(x[:300], Y[:300]))
    assert result.trained_on == 299
    assert all(math.isfinite(a.train_error) for a in result.attempts)


def test_weights_that_are_no_numbers_are_beaten_by_a_fresh_start():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    result = relearned(model)
    assert math.isnan(result.attempts[0].error)
    assert result["restarted"].better


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_where_all_targets_are_the_same_nothing_can_be_learned(task):
    targets = torch.full((400, 1), 3.0) if task == "regression" else torch.ones(400, dtype=torch.long)
    model = network() if task == "regression" else nn.Linear(6, 2)
    outcome = autopsy(model, (X, targets), task=task, examine=["relearning"]).outcomes[0]
    assert outcome.status == "skipped"
    assert "all targets are the same" in outcome.reason


def test_a_model_that_is_hardly_behind_is_not_warned_of():
    x = torch.randn(900, 6, generator=torch.Generator().manual_seed(2))
    y = x[:, :1] - x[:, 1:2]
    model = nn.Linear(6, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.97, -0.97, 0.0, 0.0, 0.0, 0.0]]))
        model.bias.zero_()
    result = relearned(model, (x[600:], y[600:]), (x[:600], y[:600]))
    assert result["reference"].better
    assert {r.severity for r in result.remarks if "reaches" in r.text} == {"info"}


def test_training_that_ended_too_early_goes_on():
    result = relearned(trained(network(), 20))
    assert result["continued"].better
    assert result["restarted"].better
    assert result["continued"].skill > result["patient"].skill + 0.1


def test_a_network_that_was_ruined_can_only_start_anew():
    model = trained(network(), 300)
    with torch.no_grad():
        model[0].weight.fill_(0.0)
        model[0].bias.fill_(50.0)  # saturated: no gradient comes back
    result = relearned(model)
    assert not result["continued"].better
    assert result["restarted"].better
    assert result.memorised > 0.9


def test_a_model_that_is_too_small_is_beaten_by_the_reference_alone():
    result = relearned(trained(nn.Linear(6, 1), 300))
    assert not result["continued"].better
    assert not result["restarted"].better
    assert result["reference"].better
    assert result.memorised < 0.9


def test_nothing_beats_noise():
    noise = torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(6, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.fill_(float(noise[:300].mean()))
    result = relearned(model, (X[300:], noise[300:]), (X[:300], noise[:300]))
    assert not any(a.better for a in result.attempts)
    assert all(abs(a.skill) < 0.2 for a in result.attempts)


def test_broken_training_labels_show_between_the_two_references():
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    result = relearned(network(), (X[300:], X[300:, :1]), (X[:300], X[:300, :1][order]))
    assert result["reference"].skill < 0.1
    assert result["reference_within"].skill > 0.7


def test_classes_are_judged_by_wrong_answers():
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    result = autopsy(model, (x[1200:], y[1200:]), train_data=(x[:1200], y[:1200]), examine=["relearning"])
    result = result["relearning"]
    assert result.metric == "share of wrong answers"
    assert result.naive_error == pytest.approx(0.9, abs=0.03)
    assert result["reference"].error < 0.08
    assert result["restarted"].error < 0.12
    assert result["patient"].error > 0.7


def test_missing_training_data_are_said():
    result = autopsy(network(), (X, Y), examine=["relearning"])["relearning"]
    assert result.own_split
    assert result.trained_on + result.tested_on == 400
    assert "No training data" in result.remarks[0].text


def test_leave_one_out_is_exact_for_the_linear_kernel():
    x, y = X[:40].double(), (X[:40, :1] * 2 + 0.3 * X[60:100, 1:2]).double()
    learner = Reference(x, y)
    assert learner.kernel == "linear"
    z = (x - x.mean(0)) / x.std(0)
    best = []
    for ridge in (10.0**e for e in range(-4, 4)):
        found = []
        for i in range(40):
            rows = [j for j in range(40) if j != i]
            design = torch.cat([torch.ones(39, 1), z[rows]], 1).double()
            penalty = torch.diag(torch.tensor([0.0] + [6 * ridge] * 6).double())
            weights = torch.linalg.solve(design.T @ design + penalty, design.T @ y[rows])
            found.append(torch.cat([torch.ones(1), z[i]]).double() @ weights)
        best.append(torch.stack(found))
    closest = min(float((b - learner.left_out).abs().max()) for b in best)
    assert closest < 1e-6


def test_the_reference_learns_what_is_not_linear():
    x = X[:300].double()
    learner = Reference(x, (x[:, :1] * x[:, 1:2]))
    assert learner.kernel == "Gaussian"
    fresh = torch.randn(100, 6, generator=torch.Generator().manual_seed(5)).double()
    error = (learner.predict(fresh) - fresh[:, :1] * fresh[:, 1:2]).square().mean()
    assert float(error) < 0.5


def test_features_bins_long_axes_and_counts_tokens():
    assert features(torch.randn(3, 129, 200)).shape == (3, 129 * 31)
    assert features(torch.full((2, 5), float("nan"))).tolist() == [[0.0] * 5] * 2
    counted = features(torch.tensor([[1, 1, 2], [3, 3, 3]]))
    assert counted[0, 1] == pytest.approx(math.sqrt(2))
    assert counted[1, 3] == pytest.approx(math.sqrt(3))


def test_starting_anew_draws_every_weight():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.MultiheadAttention(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    assert start_anew(model) == 0
    assert not any((p == 7.0).any() for p in model.parameters())

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((3, 3), 7.0))

    own = Own()
    assert start_anew(own) == 1
    assert not (own.weight == 7.0).any()


def test_time_that_is_too_short_for_training_is_said(monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._training._SECONDS", 0.0)
    result = relearned(network())
    assert result["continued"] is None
    assert np.isnan(result.memorised)
    assert sum("take too long" in r.text for r in result.remarks) == 2
