"""Weight statistics against a float64 reference on the same tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers_probe import Bench, parameters
from torchwatch.probes.weights import WeightProbe

_SHAPES = st.lists(st.lists(st.integers(1, 60), max_size=3).map(tuple), min_size=1, max_size=5)
_DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


@settings(max_examples=30, deadline=None)
@given(_SHAPES, _DTYPES, st.floats(0, 1), st.sampled_from([None, math.nan, math.inf]))
def test_statistics_are_those_of_a_reference(shapes, dtype, near, bad) -> None:
    model = parameters(*shapes, dtype=dtype)
    for parameter in model:
        parameter.data[torch.rand(parameter.shape) < near] = 0.0
    if bad is not None:
        model[0].data[(0,) * model[0].dim()] = bad
    fields = Bench(WeightProbe(), model).step(sampled=True)
    for index, parameter in enumerate(model):
        exact = parameter.detach().double()
        assert fields["weight_nonfinite"][index] == (~exact.isfinite()).sum().item()
        if not exact.isfinite().all():
            assert not np.isfinite(fields["weight_norms"][index])
            assert np.isnan(fields["weight_zero_fraction"][index])
            continue
        np.testing.assert_allclose(fields["weight_norms"][index], exact.norm().item(), rtol=1e-5)
        limit = 1e-6 * exact.square().mean().sqrt()
        share = (exact.abs() <= limit).double().mean().item()
        np.testing.assert_allclose(fields["weight_zero_fraction"][index], share, atol=1e-6)


def test_small_values_beside_large_ones_are_near_zero() -> None:
    model = parameters((70_000,), (100,), (100,))
    for parameter in model:
        parameter.data[:] = 1.0
        parameter.data[: len(parameter) // 4] = 1e-8
        parameter.data[len(parameter) // 4 : len(parameter) // 2] = 1e-5
    fields = Bench(WeightProbe(), model).step(sampled=True)
    np.testing.assert_allclose(fields["weight_zero_fraction"], 0.25, atol=1e-6)


def test_zero_fractions_on_thorough_steps_only_and_nothing_on_others() -> None:
    bench = Bench(WeightProbe(), parameters((4,), (3000,)))
    seen = ["weight_zero_fraction" in bench.step(sampled=True) for _ in range(101)]
    assert [n for n, there in enumerate(seen, 1) if there] == [1, 51, 101]
    assert "weight_zero_fraction" not in Bench(WeightProbe(), parameters((4,))).step(sampled=True, rare=False)
    assert bench.step() == {}


def test_complex_and_sparse_layouts_are_read_or_left_out() -> None:
    model = nn.ParameterList([nn.Parameter(torch.tensor([3 + 4j])), nn.Parameter(torch.ones(0))])
    norms = Bench(WeightProbe(), model).step(sampled=True)["weight_norms"]
    assert norms[0] == 5.0
    assert np.isnan(norms[1])
