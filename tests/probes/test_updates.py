"""Update ratios against a full copy, and exactly 0 where nothing moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes.updates import _scattered


def train(model, optimizer, steps: int, truth: list[np.ndarray] | None = None, before=lambda step: None):
    def body(watch) -> None:
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            before(step)
            old = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4, generator=generator, dtype=old[0].dtype)).square().mean()
            loss.backward()
            optimizer.step()
            if truth is not None:
                moved = [(p.detach() - o).norm().item() for p, o in zip(model.parameters(), old, strict=True)]
                truth.append(np.array([m / o.norm().item() for m, o in zip(moved, old, strict=True)]))
            watch.log(loss=loss)

    return body


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_parameters_are_exact(tmp_path, dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).to(dtype)
    truth: list[np.ndarray] = []
    body = train(model, torch.optim.Adam(model.parameters(), lr=0.01), 5, truth)
    for step, exact in zip(steps_of(record(model, body, tmp_path / "r.jsonl")), truth, strict=True):
        np.testing.assert_allclose(step.update_ratios, exact, rtol=2e-3)


def test_large_parameters_are_estimated_from_a_slice(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3000), nn.Tanh(), nn.Linear(3000, 2))
    truth: list[np.ndarray] = []
    config = WatchConfig(update_slice=512, activations_every=1, terminal=False)
    body = train(model, torch.optim.Adam(model.parameters(), lr=0.01), 4, truth)
    records = record(model, body, tmp_path / "r.jsonl", config=config)
    np.testing.assert_allclose(steps_of(records)[2].update_ratios, truth[2], rtol=0.2)


def test_nothing_moved_is_exactly_zero(tmp_path) -> None:
    model = nn.Linear(4, 2)
    other = nn.Linear(4, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.0)
    steps = steps_of(record(model, train(model, optimizer, 3), tmp_path / "r.jsonl"))
    assert [s.update_ratio for s in steps] == [0.0, 0.0, 0.0]


def test_tiny_updates_of_double_precision_are_not_zero(tmp_path) -> None:
    model = nn.Linear(4, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
    steps = steps_of(record(model, train(model, optimizer, 2), tmp_path / "r.jsonl"))
    assert all(0 < s.update_ratio < 1e-9 for s in steps)


def test_a_zero_weight_that_moves_has_ratio_one_and_nan_is_nan(tmp_path) -> None:
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.bias)

    def before(step: int) -> None:
        if step == 1:
            with torch.no_grad():
                model.weight[0, 0] = float("nan")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = steps_of(record(model, train(model, optimizer, 2, before=before), tmp_path / "r.jsonl"))
    assert steps[0].update_ratios[1] == 1.0
    assert math.isnan(steps[1].update_ratios[0])
    assert math.isnan(steps[1].update_ratio)


def test_weights_that_move_in_memory_are_followed(tmp_path) -> None:
    model = nn.Linear(4, 2)

    def before(step: int) -> None:
        if step == 2:
            model.weight.data = model.weight.data.clone()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = steps_of(record(model, train(model, optimizer, 4, before=before), tmp_path / "r.jsonl"))
    assert all(s.update_ratio > 0 for s in steps)


def test_slices_are_views_of_plain_memory_only() -> None:
    parameter = nn.Parameter(torch.arange(60.0).view(5, 12).t())
    view = _scattered(parameter, 7)
    assert view is not None
    assert view.numel() <= 7
    assert view.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    assert _scattered(nn.Parameter(torch.ones(4, device="meta")), 7) is None
    assert _scattered(nn.Parameter(torch.ones(0)), 7) is None
    assert _scattered(nn.Parameter(torch.ones(4, 6)[:, ::2]), 7) is None
