"""Activations: against plain definitions on all samples at once, planted faults, every kind of patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_patients import PATIENTS, Patient, admit, assert_untouched
from torchwatch.examinations import activations as module
from torchwatch.postmortem import autopsy
from torchwatch.results.activations import Activations


def examined(model: nn.Module, x: torch.Tensor, **known: object) -> Activations:
    with torch.no_grad():
        y = model(x)
    result = autopsy(model, (x, torch.zeros_like(y)), examine=["activations"], **known)
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    return result["activations"]


def mlp(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 40), *middle, nn.Linear(40, 2))


@pytest.mark.parametrize("chunk", [7, 64, 512])
def test_every_statistic_is_that_of_all_samples_at_once(chunk: int) -> None:
    model, x = mlp(nn.ReLU()), torch.randn(100, 6)
    found = examined(model, x, chunk=chunk)
    with torch.no_grad():
        hidden = model[:2](x).double()
    assert found.layers == ("0", "1", "2")
    assert found.kinds == ("Linear", "ReLU", "Linear")
    row = 1
    assert found.mean[row] == pytest.approx(float(hidden.mean()), rel=1e-5)
    assert found.std[row] == pytest.approx(float(hidden.std(correction=0)), rel=1e-5)
    assert found.absmax[row] == pytest.approx(float(hidden.abs().max()))
    assert found.zero_fraction[row] == float((hidden == 0).double().mean())
    assert found.dead_fraction[row] == float((hidden.abs().amax(0) <= 1e-6).double().mean())
    activity = hidden.abs().mean(0)
    dormant = float((activity <= 0.025 * activity.mean()).double().mean())
    assert found.dormant_fraction[row] == pytest.approx(dormant)
    assert np.isnan(found.dead_fraction[[0, 2]]).all()
    assert found.described == 100


def test_rank_and_cka_follow_their_definitions() -> None:
    model, x = mlp(nn.Tanh()), torch.randn(60, 6)
    found = examined(model, x, chunk=16)
    with torch.no_grad():
        outputs = [model[: i + 1](x).double().numpy() for i in range(3)]
    for row, out in enumerate(outputs):
        values = np.linalg.svd(out, compute_uv=False)
        shares = values / values.sum()
        shares = shares[shares > 1e-12]
        assert found.effective_rank[row] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
        assert found.most_rank[row] == min(out.shape)
        spread = np.sqrt(out.var(0).mean() / np.square(out).mean())
        assert found.sample_spread[row] == pytest.approx(spread, rel=1e-5)
    assert found.cka[0] == pytest.approx(_debiased_cka(outputs[0], outputs[1]), abs=1e-5)
    assert math.isnan(found.cka[2])


def _debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA with the unbiased HSIC of Song et al. (2012), from its definition."""

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        n = len(a)
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        one = np.ones(n)
        middle = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + middle - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3)))

    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))


def test_dead_units_are_named() -> None:
    model = mlp(nn.ReLU())
    with torch.no_grad():
        model[0].weight[:24] = 0
        model[0].bias[:24] = -1
    found = examined(model, torch.randn(80, 6))
    assert found.dead_fraction[1] >= 0.6
    assert set(range(24)) <= set(found.dead_units[1].tolist())
    remark = next(r for r in found.remarks if "Dead units" in r.text)
    assert remark.severity == "warning"
    assert "`1`" in remark.text


def test_a_functional_activation_shows_as_the_input_of_what_reads_it() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(functional.relu(self.first(x)))

    model = Functional()
    with torch.no_grad():
        model.first.bias.fill_(-100)
    found = examined(model, torch.randn(40, 6))
    assert found.names() == ["first", "input of second", "second"]
    assert found.dead_fraction[1] == 1.0
    assert found.post_activation.tolist() == [False, True, False]
    assert {r.severity for r in found.remarks if "Dead" in r.text} == {"critical"}


def test_inputs_that_a_layer_put_out_or_the_model_was_given_are_no_rows() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 2)
    )
    found = examined(model, torch.randn(20, 3, 4))
    assert found.sides == ("output",) * 3
    assert found.kinds == ("Linear", "ReLU", "Linear")


def test_saturation_of_tanh_and_gates() -> None:
    model = mlp(nn.Tanh())
    with torch.no_grad():
        model[0].weight.mul_(200)
    x = torch.randn(50, 6)
    found = examined(model, x)
    with torch.no_grad():
        expected = float((model[:2](x).abs() >= 0.99).double().mean())
    assert found.saturated_fraction[1] == pytest.approx(expected)
    assert np.isnan(found.saturated_fraction[0])
    assert any("at their bounds" in r.text and r.severity == "warning" for r in found.remarks)


def test_a_layer_that_ignores_the_sample_is_critical() -> None:
    model = mlp(nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(1.0)
    found = examined(model, torch.randn(30, 6))
    assert found.sample_spread[0] == 0
    assert any("the same for every sample" in r.text and r.severity == "critical" for r in found.remarks)


def test_nonfinite_values_are_counted_and_located() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 2, torch.inf, x)

    model = nn.Sequential(nn.Linear(6, 6), Broken(), nn.Linear(6, 1))
    with torch.no_grad():
        model[0].weight.copy_(3 * torch.eye(6))
    x = torch.randn(30, 6)
    with torch.no_grad():
        expected = int((model[0](x) > 2).sum())
    found = examined(model, x, task="regression")
    assert found.nonfinite[1] == expected > 0
    assert found.nonfinite[0] == 0
    assert any("first in `1`" in r.text and r.severity == "critical" for r in found.remarks)


def test_a_healthy_model_gets_no_warning() -> None:
    found = examined(mlp(nn.ReLU()), torch.randn(200, 6))
    assert [r.severity for r in found.remarks] == ["info"]


def test_channels_are_units_of_images_and_memory_is_bounded() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 700, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(700, 1)
    )
    found = examined(model, torch.randn(12, 2, 9, 9))
    assert found.units[:2].tolist() == [700, 700]
    assert found.shapes[0] == (700, 7, 7)
    assert found.most_rank.max() <= 12


def test_the_chunk_is_halved_without_counting_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = mlp(nn.ReLU()), torch.randn(64, 6)
    whole = examined(model, x)
    real = module.Watch
    tries: list[int] = []

    class Small(real):  # type: ignore[valid-type,misc]
        def _take(self, *args: object, **kwargs: object) -> None:
            tries.append(self.count)
            if self.count > 16 and len(self.seen) == 2:
                raise torch.OutOfMemoryError("out of memory")
            super()._take(*args, **kwargs)

    monkeypatch.setattr(module, "Watch", Small)
    halved = examined(model, x)
    assert max(tries) == 64
    np.testing.assert_allclose(halved.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(halved.effective_rank, whole.effective_rank, rtol=1e-6)


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient: Patient) -> None:
    model, data = admit(patient)
    with assert_untouched(model):
        result = autopsy(model, data, examine=["activations"])
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    found = result["activations"]
    assert len(found.layers) >= 1
    assert not [r for r in found.remarks if r.severity == "critical"]
