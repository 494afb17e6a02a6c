"""The shortcut behind the first layer: the same numbers, and none where it would not hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations import _ablation_shortcut
from torchwatch.examinations._ablation_elements import Element, parts_of
from torchwatch.examinations._ablation_fills import Fills, Orders
from torchwatch.examinations._ablation_shortcut import shortcut
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.untouched import untouched
from torchwatch.postmortem import autopsy
from torchwatch.results import AutopsyInputs

COUNT = 7


@pytest.fixture(autouse=True)
def always_gains(monkeypatch):
    monkeypatch.setattr(_ablation_shortcut, "_gains", lambda *_: True)


def found(
    model: nn.Module, x: torch.Tensor, elements: list[Element] | None = None, fill: str = "permutation"
):
    """The shortcut's feed for a model, and jobs on its elements."""
    with torch.no_grad():
        y = torch.zeros_like(model.eval()(x))
    case = Case(AutopsyInputs(model, (x, y)), Options(window=3))
    fills = Fills(x, fill)
    elements = elements or [e for p in parts_of(case) for e in p.elements]
    orders = Orders(len(x), 1, np.random.default_rng(0))
    jobs = [fills.job(e, orders, 0) for e in elements]
    return shortcut(case, fills, jobs[:1]), fills, jobs


def check(model: nn.Module, layer: nn.Module, x: torch.Tensor, elements=None, *, flat=False) -> None:
    """Every ablation changes the layer's output as if its input were changed."""
    got, fills, jobs = found(model, x, elements)
    assert got is not None
    feed = got[1]
    for job in jobs:
        changed = x.clone()
        for piece in job.element.pieces:
            changed[(slice(None), *piece)] = fills.values(piece, job)
        rows = feed.home.clone()
        with torch.no_grad():
            feed.fill(rows, job)
            expected = layer(changed.flatten(1) if flat else changed)
        torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4)
        feed.restore(rows, job)
        assert torch.equal(rows, feed.home)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolutions_of_any_shape(data):
    draw = data.draw
    dimensions = draw(st.integers(1, 3))
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    numbers = st.tuples(*[st.integers(1, 3)] * dimensions)
    kernel, dilation, stride = draw(numbers), draw(numbers), draw(numbers)
    padding = draw(
        st.one_of(st.tuples(*[st.integers(0, 3)] * dimensions), st.sampled_from(["same", "valid"]))
    )
    if padding == "same":
        stride = (1,) * dimensions
    size = draw(st.tuples(*[st.integers(7, 10)] * dimensions))
    layer = kind(2, 3, kernel, stride, padding, dilation)
    torch.manual_seed(0)
    x = torch.randn(COUNT, 2, *size)
    spans = []
    for length in (2, *size):
        low = draw(st.integers(0, length - 1))
        spans.append(slice(low, draw(st.integers(low + 1, length))))
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1))
    check(model, layer, x, [Element("drawn", (tuple(spans),))])


def test_linear_layers_on_features_flat_and_along_time():
    layer = nn.Linear(6, 4)
    check(nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 2)), layer, torch.randn(COUNT, 6))
    check(nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)), layer, torch.randn(COUNT, 5, 6))
    layer = nn.Linear(30, 4)
    check(nn.Sequential(nn.Flatten(), layer), layer, torch.randn(COUNT, 5, 6), flat=True)
    two = Element("two", ((slice(0, 1),), (slice(3, 5),)))
    layer = nn.Linear(6, 4)
    check(nn.Sequential(layer, nn.Linear(4, 1)), layer, torch.randn(COUNT, 6), [two])


class Skip(nn.Module):
    """The input is used again behind the first layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, x):
        return self.head(self.layer(x) + x)


class Looks(Skip):
    """The first layer's weights are used elsewhere, too."""

    def forward(self, x):
        return self.head(self.layer(x)) + self.layer.weight.sum()


class Guesses(Skip):
    def forward(self, x):
        return self.head(self.layer(x) + torch.randn(6))


class Twice(Skip):
    def forward(self, x):
        return self.head(self.layer(x) + self.layer(x))


class Refuses(Skip):
    """Does not like NaN."""

    def forward(self, x):
        if x.isnan().any():
            raise ValueError("no")
        return self.head(self.layer(x))


class Scales(Skip):
    def forward(self, x):
        return self.head(self.layer(x / 2))


def _grouped() -> nn.Module:
    return nn.Sequential(nn.Conv1d(6, 6, 1, groups=3), nn.Flatten(), nn.Linear(30, 1))


def _circular() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 6, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(30, 1)
    )


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
    model[0].register_forward_hook(lambda module, args, output: output.abs())
    return model


def _not_copied() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1))
    model.held = (torch.ones(1, requires_grad=True) * 2,)
    return model


@pytest.mark.parametrize("kind", [Skip, Looks, Guesses, Twice, Refuses, Scales, _hooked, _not_copied])
def test_none_where_it_would_not_hold(kind):
    assert found(kind(), torch.randn(COUNT, 6))[0] is None


@pytest.mark.parametrize("kind", [_grouped, _circular])
def test_none_for_convolutions_that_are_not_plain(kind):
    assert found(kind(), torch.randn(COUNT, 6, 5))[0] is None


def test_none_where_nothing_is_gained(monkeypatch):
    monkeypatch.setattr(_ablation_shortcut, "_gains", lambda *_: False)
    assert found(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1)), torch.randn(COUNT, 6))[0] is None


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_patients_survive_and_both_ways_agree(patient, monkeypatch):
    model, data = admit(patient)
    with assert_untouched(model):
        short = autopsy(model, data, examine=["ablation"], repeats=2, window=4)["ablation"]
    monkeypatch.setattr("torchwatch.examinations._ablation_inputs.shortcut", lambda *_: None)
    whole = autopsy(model, data, examine=["ablation"], repeats=2, window=4)["ablation"]
    assert whole.shortcut == ""
    for a, b in zip(short.parts, whole.parts, strict=True):
        np.testing.assert_allclose(a.importance, b.importance, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(a.interval, b.interval, rtol=1e-3, atol=1e-5)


def test_it_is_taken_where_it_holds():
    model, data = admit(next(p for p in PATIENTS if p.name == "signals"))
    with untouched(model):
        assert autopsy(model, data, examine=["ablation"])["ablation"].shortcut == "0"
