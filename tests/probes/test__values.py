"""Level and range against a float64 reference, over shapes, types, layouts and calls."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from torchwatch.probes._values import described, numbers

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def call(tensor: torch.Tensor) -> tuple:
    found = numbers(tensor)
    values = np.empty(0) if found is None else found.to(torch.float64).numpy()
    return list(tensor.shape), str(tensor.dtype), values


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    level=st.sampled_from([0.0, 1.0, -40.0, 1e4]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    turned=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_floats(sizes, dtype, level, spread, turned, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [(level + spread * torch.randn(n, 7, 5, generator=generator)).to(dtype) for n in sizes]
    found = described([call(p.transpose(0, 2) if turned else p) for p in parts])
    exact = torch.cat(parts).double()
    scale = float(exact.abs().max()) + 1e-30
    assert (found["low"], found["high"]) == (exact.min(), exact.max())
    assert (found["absmax"], found["nonfinite"]) == (exact.abs().max(), 0)
    np.testing.assert_allclose(found["mean"], exact.mean(), atol=1e-6 * scale)
    np.testing.assert_allclose(found["std"], exact.std(correction=0), rtol=1e-4, atol=1e-6 * scale)


@given(places=st.sets(st.integers(0, 99)), hole=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_holes_are_counted(places, hole) -> None:
    tensor = torch.linspace(-1, 1, 100)
    tensor[sorted(places)] = hole
    found = described([call(tensor), call(torch.ones(50))])
    assert found["nonfinite"] == len(places)
    assert math.isfinite(found["mean"]) == math.isfinite(found["absmax"]) == (not places)
    assert math.isnan(found["low"]) == (bool(places) and math.isnan(hole))


def test_whole_numbers_and_others() -> None:
    ids = [call(torch.tensor([[3, -7], [900, 4]])), call(torch.tensor([[1000]]))]
    assert described(ids) == {"shape": [2, 2], "dtype": "torch.int64", "low": -7, "high": 1000}
    assert described([call(torch.tensor([7, 9], dtype=torch.uint8))])["high"] == 9
    for tensor in (torch.tensor([True]), torch.zeros(2, dtype=torch.complex64), torch.zeros(0)):
        assert set(described([call(tensor)])) == {"shape", "dtype"}


def test_a_change_of_type_between_calls_keeps_the_first() -> None:
    found = described([call(torch.tensor([5])), call(torch.tensor([0.5]))])
    assert (found["low"], found["high"]) == (5, 5)
