"""Reductions over many tensors: the private function of torch and the fallback say the same.

Where the private function is there and raises, its probe is switched off and says so; training goes on. Every
other private name is left out in ``tests/survival/test_fallbacks.py``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes import _torch
from torchwatch.probes._thorough import APART
from torchwatch.records import Layout, Note, Record, is_missing

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
GONE = {"_foreach_norm", "flatten_dense_tensors", "_foreach_sub_"}


@pytest.fixture(params=["there", "gone"])
def torch_has(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both releases of torch: one that has the private functions, one that lacks them."""

    def without(thing: Any, name: str, *default: Any) -> Any:
        return default[0] if name in GONE and default else getattr(thing, name, *default)

    if request.param == "gone":
        monkeypatch.setattr(_torch, "getattr", without, raising=False)
    return request.param == "there"


def some(dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    """Scalars, matrices, views with holes, turned ones, single entries."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(9, 8, generator=generator, dtype=torch.float64).to(dtype)
    return [
        torch.tensor(-1.5, dtype=dtype), wide.clone(), wide[:, ::3], wide.t(), wide[3:4, 2],
        wide.view(3, 3, 8) * -2,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_norms(torch_has: bool, dtype: torch.dtype) -> None:
    tensors = some(dtype)
    found = _torch.norms(tensors)
    assert found.shape == (len(tensors),)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(found, [t.double().norm() for t in tensors], rtol=1e-5)


def test_norms_of_half_precision_do_not_overflow(torch_has: bool) -> None:
    """100 entries of 60,000: the norm is beyond the type, and not infinite."""
    full = [torch.full((100,), 60_000.0, dtype=dtype) for dtype in (torch.float16, torch.bfloat16)]
    assert [float(_torch.norms([t])) for t in full] == pytest.approx([6e5, 6e5], rel=5e-3)


def test_norms_of_what_is_no_number(torch_has: bool) -> None:
    tensors = [torch.tensor([1.0, bad]) for bad in (math.nan, math.inf, -math.inf, 0.0)]
    np.testing.assert_array_equal(_torch.norms(tensors), [math.nan, math.inf, math.inf, 1.0])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [1, 2, 6])
def test_flattened(torch_has: bool, dtype: torch.dtype, count: int) -> None:
    """In their order and row by row, and never a view: numpy marks what it was made of as not resizable."""
    tensors = some(dtype)[-count:]
    before = [t.clone() for t in tensors]
    flat = _torch.flattened(tensors)
    assert flat.tolist() == [value for t in tensors for value in t.reshape(-1).tolist()]
    assert flat.dtype == dtype
    flat.zero_()
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


def test_one_contiguous_tensor_is_copied_as_well(torch_has: bool) -> None:
    tensor = torch.ones(5)
    flat = _torch.flattened([tensor])
    assert flat.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    flat.numpy()
    tensor.untyped_storage().resize_(400)


@pytest.mark.parametrize("dtype", FLOATS)
def test_absmaxes(torch_has: bool, dtype: torch.dtype) -> None:
    tensors = some(dtype)
    found = _torch.absmaxes(tensors)
    assert found.dtype == dtype
    assert found.tolist() == [t.abs().max().item() for t in tensors]


def test_absmaxes_of_what_is_no_number(torch_has: bool) -> None:
    tensors = [torch.tensor([1.0, bad, -2.0]) for bad in (math.nan, math.inf, -math.inf, 0.0)]
    np.testing.assert_array_equal(_torch.absmaxes(tensors), [math.nan, math.inf, math.inf, 2.0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_subtract(torch_has: bool, dtype: torch.dtype) -> None:
    tensors, others = [t.clone() for t in some(dtype)], some(dtype, seed=1)
    expected = [a - b for a, b in zip(tensors, others, strict=True)]
    before = [b.clone() for b in others]
    same = list(tensors)
    _torch.subtract_(tensors, others)
    assert all(torch.equal(a, e) for a, e in zip(same, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(others, before, strict=True))


# ------------------------------------------------------------------------------------- in a training

CONFIG = WatchConfig(
    budget=None, gradients_every=1, activations_every=1, rare_every=1, terminal=False, energy=False
)
Trained = tuple[list[float], list[torch.Tensor]]


def train(steps: int, watch: Any = None) -> Trained:
    """Some parameters are reduced by themselves, others copied together; of one only a slice is read."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=False)
    losses = []

    def body(watch: Any) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.mse_loss(model(torch.randn(6, 8)), torch.zeros(6, 2))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if watch is not None:
                watch.log(loss=loss)

    if watch is None:
        body(None)
    else:
        watch(model, body)
    return losses, [p.detach() for p in model.parameters()]


def watched(steps: int, path: Path) -> tuple[Trained, list[Record]]:
    records: list[Record] = []
    trained = train(steps, lambda model, body: records.extend(record(model, body, path, CONFIG)))
    return trained, records


def assert_the_same(one: Trained, other: Trained) -> None:
    assert one[0] == other[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def coverage(records: list[Record]) -> dict[str, str]:
    return [r for r in records if isinstance(r, Layout)][-1].coverage


@pytest.mark.parametrize("gone", [(), *((name,) for name in sorted(GONE)), tuple(sorted(GONE))])
def test_columns_are_the_same_without_the_private_functions(
    gone: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, records = watched(4, tmp_path / "with.jsonl")

    def without(thing: Any, name: str, *default: Any) -> Any:
        return default[0] if name in gone and default else getattr(thing, name, *default)

    monkeypatch.setattr(_torch, "getattr", without, raising=False)
    again, others = watched(4, tmp_path / "without.jsonl")
    assert_the_same(trained, again)
    assert coverage(others) == coverage(records)
    for one, other in zip(steps_of(records), steps_of(others), strict=True):
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-6)
        assert other.update_ratio == pytest.approx(one.update_ratio, rel=1e-6)
        for name in ("grad_norms", "update_ratios", "weight_norms", "grad_absmax"):
            own, its = getattr(one, name), getattr(other, name)
            assert its == pytest.approx(own, rel=1e-3)
            assert not is_missing(own).any()


@pytest.mark.parametrize(
    ("home", "name", "probes"),
    [
        (torch, "_foreach_norm", {"gradients", "weights", "updates"}),
        (torch, "_foreach_sub_", {"updates"}),
        (torch._C._nn, "flatten_dense_tensors", {"weights"}),  # gradients are then taken one by one
    ],
)
def test_a_private_function_that_raises_costs_its_probes_and_no_more(
    home: Any, name: str, probes: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not measured is said: in a note, and by nothing in the steps."""
    steps = 2 + APART  # whole parameters are subtracted on thorough steps alone
    bare = train(steps)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{name} is out of order")

    monkeypatch.setattr(home, name, broken)
    trained, records = watched(steps, tmp_path / "run.jsonl")
    assert_the_same(bare, trained)
    found = steps_of(records)
    assert [step.step for step in found] == list(range(1, steps + 1))
    assert all(step.loss is not None and step.activations is not None for step in found)
    notes = [note for note in records if isinstance(note, Note) and "out of order" in note.message]
    assert {note.topic for note in notes} == probes
    coverage = [r for r in records if isinstance(r, Layout)][-1].coverage
    assert {probe for probe in probes if "out of order" in coverage[probe]} == probes
    columns = {"gradients": "grad_norms", "weights": "weight_norms", "updates": "update_ratios"}
    for probe, column in columns.items():
        assert (getattr(found[-1], column) is None) == (probe in probes), probe
