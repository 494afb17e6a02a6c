"""Calls of layers, pooled, against the plain statistics of everything that the layers put out."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.probes.truth import batch_std
from torchwatch.probes._moments import arrange, reference
from torchwatch.probes._pooled import Calls, pooled
from torchwatch.records import Column, is_bad, is_missing

HALF = float(torch.finfo(torch.float16).max)
BOUNDS = (0.0, 1.0)
Output = tuple[int, torch.Tensor, bool]
"""A layer, what it put out, and whether its function has bounds."""


def columns(*outputs: Output, width: int = 4) -> dict[str, Column]:
    moments = [
        reference(*arrange(tensor, None), bounds=BOUNDS if bounded else None).vector
        for _, tensor, bounded in outputs
    ]
    return pooled(
        Calls(
            np.array([layer for layer, _, _ in outputs]),
            np.array([float(tensor.numel()) for _, tensor, _ in outputs]),
            np.array([float(tensor.shape[0]) for _, tensor, _ in outputs]),
            np.array([HALF if tensor.dtype == torch.float16 else math.nan for _, tensor, _ in outputs]),
            np.array([list(vector) for vector in moments]),
        ),
        width,
    )


def assert_pooled(found: dict[str, Column], layer: int, tensors: list[torch.Tensor]) -> None:
    """Level and counts of all entries of the calls together."""
    x = torch.cat([t.double().reshape(-1) for t in tensors])
    expected = {
        "mean": x.mean(), "std": x.std(correction=0), "rms": x.square().mean().sqrt(),
        "zero_fraction": (x == 0).double().mean(), "absmax": x.abs().max(), "nonfinite": 0.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[name][layer] == pytest.approx(float(value), rel=2e-5, abs=1e-9), name


@settings(max_examples=60)
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 6), st.sampled_from([(5,), (2, 3), (1,)])),
        min_size=1,
        max_size=8,
    ),
    level=st.sampled_from([0.0, 3.0, -100.0]),
    seed=st.integers(0, 1000),
)
def test_any_calls_against_everything_put_together(calls, level, seed) -> None:
    """Layers are called once or more, in any order; layer 3 never is."""
    generator = torch.Generator().manual_seed(seed)
    outputs: list[Output] = []
    for layer, samples, shape in calls:
        x = level + torch.randn(samples, *shape, generator=generator)
        outputs.append((layer, x.where(x > level - 1, torch.zeros(())), False))
    found = columns(*outputs)
    assert set(found) == {
        "mean", "std", "rms", "zero_fraction", "absmax", "nonfinite", "batch_std",
    }  # fmt: skip
    for layer in range(4):
        own = [tensor for at, tensor, _ in outputs if at == layer]
        if not own:
            assert all(is_missing(column)[layer] for column in found.values())
            continue
        assert_pooled(found, layer, own)
        if any(len(tensor) > 1 for tensor in own):
            assert found["batch_std"][layer] == pytest.approx(batch_std(own), rel=1e-4, abs=1e-6)
        else:
            assert is_missing(found["batch_std"])[layer], "one sample has no spread, and it is not 0"


def test_calls_on_different_levels_spread_between_them() -> None:
    """Each call is constant: all of the deviation is between the calls."""
    found = columns((1, torch.full((4, 3), 10.0), False), (1, torch.full((4, 3), -2.0), False))
    assert (found["mean"][1], found["std"][1]) == (4, 6)
    assert found["batch_std"][1] == 0, "within a call all samples are the same"


def test_a_small_spread_on_a_large_level_is_not_lost() -> None:
    x = 1000 + 0.01 * torch.randn(64, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = columns((0, x, False), (2, x + 1, False))
    assert found["std"][0] == pytest.approx(float(x.std(correction=0)), rel=1e-4)
    assert found["batch_std"][0] == pytest.approx(1e-5, rel=0.05)
    assert found["std"][2] == pytest.approx(found["std"][0], rel=1e-4)


def test_nothing_but_zeros() -> None:
    found = columns((2, torch.zeros(5, 4), False))
    values = {name: float(column[2]) for name, column in found.items()}
    assert values == {
        "mean": 0, "std": 0, "rms": 0, "zero_fraction": 1, "absmax": 0, "nonfinite": 0, "batch_std": 0,
    }  # fmt: skip


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_call_that_is_no_number_is_not_hidden_by_another_nor_spreads(bad: float) -> None:
    good, broken = torch.ones(3, 2), torch.ones(3, 2)
    broken[1, 1] = bad
    for order in ((good, broken), (broken, good)):
        found = columns(*((0, x, False) for x in order), (1, good, False))
        for name in ("mean", "std", "rms", "absmax", "batch_std"):
            assert is_bad(found[name])[0], name
        assert not is_missing(found["std"])[0]
        assert found["nonfinite"].tolist()[:2] == [1, 0]
        assert (found["mean"][1], found["std"][1], found["absmax"][1]) == (1, 0, 1)
        assert found["zero_fraction"][0] == 0


def test_saturation_of_layers_with_bounds_alone() -> None:
    half = torch.tensor([[0.0, 0.5], [1.0, 0.995]])
    found = columns((0, half, True), (1, half, False), (0, torch.full((1, 4), 0.5), True))
    assert found["saturated_fraction"][0] == pytest.approx(3 / 8)
    assert is_missing(found["saturated_fraction"]).tolist() == [False, True, True, True]
    assert "saturated_fraction" not in columns((1, half, False))


def test_headroom_of_low_precision_alone() -> None:
    """The call that comes closest to the largest number counts."""
    x = torch.tensor([[1.0, -655.04]])
    found = columns((3, x.half(), False), (3, 10 * x.half(), False), (1, x, False))
    assert found["headroom"][3] == pytest.approx(0.1, rel=1e-3)
    assert is_missing(found["headroom"]).tolist() == [True, True, True, False]
    assert "headroom" not in columns((1, x, False))


def test_what_does_not_fit_into_float32_is_its_largest_number_and_no_infinity() -> None:
    found = columns((0, torch.full((2, 2), 1e200, dtype=torch.float64), False))
    largest = np.finfo(np.float32).max
    assert (found["absmax"][0], found["mean"][0]) == (largest, largest)
    assert found["nonfinite"][0] == 0
