"""The norm before clipping is the one that clip_grad_norm_ computed, of watched gradients only."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad, clip_grad_norm_

from tests.helpers_watch import record, steps_of
from torchwatch.probes import _torch


def test_norm_before_and_after(tmp_path) -> None:
    model, other = nn.Linear(4, 2), nn.Linear(3, 3)
    totals: list[float] = []

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(4):
            optimizer.zero_grad()
            loss = model(torch.ones(5, 4) * (step + 1)).square().sum() + other(torch.ones(1, 3)).sum()
            loss.backward()
            totals.append(clip_grad_norm_(model.parameters(), 1e9 if step == 2 else 0.5).item())
            clip_grad_norm_(other.parameters(), 0.1)
            optimizer.step()
            watch.log(loss=loss)

    steps = steps_of(record(model, body, tmp_path / "r.jsonl"))
    assert [s.grad_norm_preclip for s in steps] == pytest.approx(totals, rel=1e-4)
    assert [s.clipped for s in steps] == [True, True, False, True]
    assert steps[0].grad_norm == pytest.approx(0.5, rel=1e-4)
    assert steps[2].grad_norm == pytest.approx(totals[2], rel=1e-4)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_norm_that_is_spread_over_ranks_is_left_alone_and_said(sharded, tmp_path, monkeypatch) -> None:
    if sharded:  # a norm without values of its own, as that of sharded gradients
        monkeypatch.setattr(_torch, "has_values", lambda tensor: tensor.dim() > 0)
    model = nn.Linear(4, 2)

    def body(watch) -> None:  # an untouched loop
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(5, 4)).square().sum().backward()
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()

    records = record(model, body, tmp_path / "r.jsonl")
    said = [r.coverage["clipping"] for r in records if r.kind == "layout"]
    assert said == ["unavailable: the norm is spread over ranks" if sharded else "ok"]
    assert [s.grad_norm_preclip is None for s in steps_of(records)] == [sharded] * 3
    assert all(s.grad_norm for s in steps_of(records))
    assert not [r for r in records if r.kind == "note"]


def test_without_clipping_nothing_is_said(tmp_path) -> None:
    model = nn.Linear(4, 2)

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            model(torch.ones(5, 4)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    steps = steps_of(record(model, body, tmp_path / "r.jsonl"))
    assert [(s.grad_norm_preclip, s.clipped) for s in steps] == [(None, None)] * 2


def test_the_function_is_put_back_after_the_last_observer() -> None:
    shared, original = _torch._TotalNorm(), clip_grad._get_total_norm

    def first(*_: object) -> None: ...
    def second(*_: object) -> None: ...

    assert shared.observe(first)
    assert shared.observe(second)
    shared.leave(first)
    assert clip_grad._get_total_norm is not original
    shared.leave(second)
    assert clip_grad._get_total_norm is original


def test_without_the_private_function_recording_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.delattr(clip_grad, "_get_total_norm")
    model = nn.Linear(4, 2)

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        model(torch.ones(5, 4)).sum().backward()
        optimizer.step()

    records = record(model, body, tmp_path / "r.jsonl")
    layout = next(r for r in records if r.kind == "layout")
    assert layout.coverage["clipping"] == "unavailable: norms are after clipping"
    assert steps_of(records)[0].grad_norm is not None
