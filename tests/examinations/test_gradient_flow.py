"""Gradient flow: against ``backward`` on the same batches, planted faults, and every kind of patient."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_patients import PATIENTS, Patient, admit, assert_untouched
from torchwatch.postmortem import autopsy
from torchwatch.results import Autopsy
from torchwatch.results.gradient_flow import GradientFlow


def outcome(model: nn.Module, data: object, **known: object) -> Autopsy:
    return autopsy(model, data, examine=["gradient_flow"], **known)


def examined(model: nn.Module, data: object, **known: object) -> GradientFlow:
    result = outcome(model, data, **known)
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    return result["gradient_flow"]


def mlp(depth: int = 2, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(8, 8), act()]
    return nn.Sequential(*layers, nn.Linear(8, 1))


def data(count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(1))
    return x, x.sum(1, keepdim=True)


def test_norms_are_those_of_backward_on_the_same_batches() -> None:
    model, (x, y) = mlp(), data()
    found = examined(model, (x, y), loss=nn.L1Loss())
    assert (found.batches, found.batch_size, found.own_loss) == (8, 10, True)
    twin = copy.deepcopy(model).eval()
    norms, means = [], []
    for start in range(0, 80, 10):
        twin.zero_grad()
        loss = nn.functional.l1_loss(twin(x[start : start + 10]), y[start : start + 10])
        loss.backward()
        norms.append(
            [math.sqrt(sum(float(p.grad.square().sum()) for p in twin[i].parameters())) for i in (0, 2, 4)]
        )
        means.append(twin[0].weight.grad.clone())
    np.testing.assert_allclose(found.gradient_norm, np.mean(norms, 0), rtol=1e-5)
    np.testing.assert_allclose(found.gradient_spread, np.std(norms, 0), rtol=1e-4)
    assert found.parameters.tolist() == [72, 72, 9]
    np.testing.assert_allclose(found.gradient_rms, found.gradient_norm / np.sqrt(found.parameters))
    weights = [
        math.sqrt(sum(float(p.detach().square().sum()) for p in twin[i].parameters())) for i in (0, 2, 4)
    ]
    np.testing.assert_allclose(found.weight_norm, weights, rtol=1e-6)
    np.testing.assert_allclose(found.ratio, found.gradient_norm / found.weight_norm)
    assert found.first_last_ratio == pytest.approx(found.gradient_rms[0] / found.gradient_rms[-1])
    assert (found.trainable, found.with_gradient) == (3, 3)
    assert found.states == ("flows",) * 3
    assert [r.severity for r in found.remarks] == ["info"]
    assert 0 < found.agreement[0] <= 1


def test_agreement_is_one_where_all_batches_pull_one_way() -> None:
    x = torch.ones(32, 8)
    found = examined(mlp(), (x, torch.full((32, 1), 9.0)))
    np.testing.assert_allclose(found.agreement, 1.0, rtol=1e-5)


def test_layers_come_in_the_order_of_their_calls_and_tied_weights_once() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(8, 1), nn.Linear(8, 8)
            self.again = nn.Linear(8, 8)
            self.again.weight = self.body.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.again(self.body(x)))

    found = examined(Backwards(), data())
    assert found.layers == ("body", "again", "head")
    assert found.parameters.tolist() == [72, 8, 9]


def test_a_detached_part_is_unreached_and_a_frozen_one_is_no_fault() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cold, self.cut, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)
            self.cold.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.cut(self.cold(x)).detach())

    found = examined(Cut(), data())
    assert found.states == ("frozen", "unreached", "flows")
    assert (found.trainable, found.with_gradient) == (2, 1)
    assert math.isnan(found.gradient_norm[0])
    assert math.isnan(found.first_last_ratio)
    remark = next(r for r in found.remarks if "no part in the loss" in r.text)
    assert (remark.severity, "`cut`" in remark.text, "cold" in remark.text) == ("warning", True, False)


def test_a_loss_that_depends_on_nothing_is_critical() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).detach()

    found = examined(Cut(), data())
    assert found.with_gradient == 0
    assert [r.severity for r in found.remarks] == ["critical"]
    assert "none of 1 layers gets a gradient" in found.remarks[0].text


def test_a_dead_layer_stops_the_gradient() -> None:
    model = mlp(3)
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.fill_(-1)
    found = examined(model, data())
    assert found.states == ("zero", "zero", "flows", "flows")
    assert any("exactly 0" in r.text and "`0`, `2`" in r.text for r in found.remarks)


def test_a_deep_sigmoid_network_vanishes_and_a_shallow_one_does_not() -> None:
    deep = examined(mlp(12, nn.Sigmoid), data())
    assert deep.states[0] == "vanishing"
    assert deep.first_last_ratio < 1e-3
    assert any("vanishes" in r.text and r.severity == "critical" for r in deep.remarks)
    assert set(examined(mlp(2, nn.Sigmoid), data()).states) == {"flows"}


def test_nonfinite_gradients_are_critical() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.layer(x) * 0).sqrt()

    found = examined(Root(), data())
    assert found.states == ("nonfinite",)
    assert any("NaN or infinite" in r.text and r.severity == "critical" for r in found.remarks)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float64, 1e140), (torch.bfloat16, 1.0)])
def test_wide_and_narrow_types(dtype: torch.dtype, scale: float) -> None:
    x, y = data()
    found = examined(mlp().to(dtype), (x.to(dtype), y.to(dtype) * scale))
    plain = examined(mlp(), (x, y))
    assert np.isfinite(found.gradient_norm).all()
    np.testing.assert_allclose(found.weight_norm, plain.weight_norm, rtol=0.01)


def test_a_loss_that_is_infinite_is_told_without_a_warning_of_numpy() -> None:
    x, y = data()
    y[3] = torch.inf
    assert "nonfinite" in examined(mlp(), (x, y)).states


def test_a_fitted_model_has_nothing_left_to_learn() -> None:
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    found = examined(model, (data()[0], torch.zeros(80, 1)))
    assert [r.severity for r in found.remarks] == ["info"]
    assert "nothing left to learn" in found.remarks[0].text


def test_says_why_there_is_nothing_to_see() -> None:
    frozen = mlp().requires_grad_(False)
    assert "no parameter of the model wants a gradient" in outcome(frozen, data()).outcomes[0].reason
    assert "hold no targets" in outcome(mlp(), (data()[0],)).outcomes[0].reason


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient: Patient) -> None:
    model, batch = admit(patient)
    with assert_untouched(model):
        result = outcome(model, batch)
    assert result.outcomes[0].status == "done", result.outcomes[0].reason
    found = result["gradient_flow"]
    assert found.with_gradient == found.trainable >= 1
    assert not [r for r in found.remarks if r.severity == "critical"]


def test_the_patient_survives_a_loss_that_raises() -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no such loss")

    model = mlp()
    with assert_untouched(model):
        result = outcome(model, data(), loss=broken)
    assert result.outcomes[0].status == "failed"
    assert "no such loss" in result.outcomes[0].reason
