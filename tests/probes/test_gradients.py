"""Gradient norms as the optimizer sees them, with what is odd about gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes.gradients import readable
from torchwatch.records import Layout, is_bad, is_missing


def loop(model, optimizer, steps: int, seen: list[list[float]], change=lambda step: None):
    def body(watch) -> None:
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4, generator=generator)).square().mean()
            loss.backward()
            change(step)
            seen.append(
                [
                    float("nan") if p.grad is None else p.grad.double().norm().item()
                    for p in model.parameters()
                ]
            )
            optimizer.step()
            watch.log(loss=loss)

    return body


def test_norms_are_those_of_the_gradients(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    seen: list[list[float]] = []
    records = record(model, loop(model, torch.optim.Adam(model.parameters()), 6, seen), tmp_path / "r.jsonl")
    for step, norms in zip(steps_of(records), seen, strict=True):
        assert step.grad_norm == pytest.approx(math.hypot(*norms), rel=1e-5)
        if step.grad_norms is not None:
            np.testing.assert_allclose(step.grad_norms, norms, rtol=1e-5)


def test_frozen_and_forgotten_parameters(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)  # model[2] is forgotten
    seen: list[list[float]] = []
    records = record(model, loop(model, optimizer, 4, seen), tmp_path / "r.jsonl")
    step = next(s for s in steps_of(records) if s.grad_norms is not None)
    assert is_missing(step.grad_norms).tolist() == [True, True, False, False, False, False]
    assert step.grad_norm == pytest.approx(
        math.hypot(*seen[0][2:4]), rel=1e-5
    )  # only what the optimizer steps
    layout = [r for r in records if isinstance(r, Layout)][-1]
    assert [p.optimizer for p in layout.parameters] == [None, None, 0, 0, None, None]
    assert [p.trainable for p in layout.parameters] == [False, False, True, True, True, True]


def test_nan_and_overflow(tmp_path) -> None:
    model = nn.Linear(4, 2).double()

    def change(step: int) -> None:
        if step == 1:
            model.weight.grad[0, 0] = float("nan")
        if step == 2:
            model.weight.grad[:] = 1e100  # finite in double precision, larger than any float32

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.ones(3, 4, dtype=torch.float64)).sum().backward()
            change(step)
            optimizer.step()
            watch.log(loss=1.0)

    steps = steps_of(record(model, body, tmp_path / "r.jsonl"))
    assert [is_bad(s.grad_norms).any() for s in steps] == [False, True, False]
    assert math.isnan(steps[1].grad_norm)
    assert steps[2].grad_norm == pytest.approx(1e100 * math.sqrt(8), rel=1e-5)


def test_sparse_and_complex_gradients(tmp_path) -> None:
    model = nn.ModuleDict({"table": nn.Embedding(10, 3, sparse=True)})
    model.register_parameter("phase", nn.Parameter(torch.tensor([3 + 4j])))

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model["table"](torch.tensor([1, 1, 2])).sum() + (model.phase.abs() ** 2).sum()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    records = record(model, body, tmp_path / "r.jsonl")
    names = [p.name for p in next(r for r in records if isinstance(r, Layout)).parameters]
    norms = dict(zip(names, steps_of(records)[0].grad_norms, strict=True))
    assert norms["table.weight"] == pytest.approx(math.sqrt(3 * 4 + 3), rel=1e-5)
    assert norms["phase"] == pytest.approx(10.0, rel=1e-5)


def test_gradients_every(tmp_path) -> None:
    model = nn.Linear(4, 2)
    config = WatchConfig(gradients_every=3, activations_every=100, dense_steps=0, terminal=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = record(model, loop(model, optimizer, 7, []), tmp_path / "r.jsonl", config=config)
    assert [s.step for s in steps_of(records) if s.grad_norm is not None] == [1, 4, 7]


def test_readable_refuses_what_has_no_values() -> None:
    assert readable(torch.zeros(0)) is None
    assert readable(torch.ones(2, device="meta")) is None
    assert readable(torch.ones(2, dtype=torch.long)) is None
    assert readable(torch.ones(2, dtype=torch.complex64)).shape == (2, 2)
