"""Entries are counted between the right powers of two, whatever the type, sign and size."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from torchwatch.probes._buckets import MOST, SPAN, counts, histogram


def counted(tensor: torch.Tensor) -> dict:
    return histogram(counts(tensor).double().numpy())


def assert_counts(values: np.ndarray, found: dict) -> None:
    """Straight from the definition, entry by entry."""
    edges, finite = found["edges"], values[np.isfinite(values)].astype(np.float64)
    assert found["nonfinite"] == len(values) - len(finite)
    assert len(edges) == len(found["counts"]) + 1
    assert edges == sorted(edges) == [-e for e in reversed(edges)]
    assert all(math.frexp(e)[0] == 0.5 for e in edges[len(edges) // 2 :])
    middle = len(found["counts"]) // 2
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        if place < middle:
            inside = (finite > low) & (finite <= high)
        elif place > middle:
            inside = (finite >= low) & (finite < high)
        else:
            inside = (finite > low) & (finite < high)
        assert found["counts"][place] == inside.sum()
    assert sum(found["counts"]) == len(finite)


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=150, deadline=None)
@given(values=st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, -2.0, 1e-40]), min_size=1, max_size=50))
def test_counts_equal_counting(values) -> None:
    array = np.array(values, np.float32)
    assert_counts(array, counted(torch.from_numpy(array)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype) -> None:
    tensor = torch.randn(300, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert_counts(tensor.double().numpy(), counted(tensor))


def test_every_entry_of_any_layout() -> None:
    tensor = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0))
    wanted = counted(tensor)
    for other in (
        tensor.to(memory_format=torch.channels_last),
        tensor.transpose(0, 2),
        tensor.repeat_interleave(2, 1)[:, ::2],
        tensor.reshape(-1),
    ):
        assert counted(other) == wanted
    assert sum(counted(torch.ones(3, 1).expand(3, 4))["counts"]) == 12
    assert counted(torch.tensor(-3.0))["counts"] == [1, 0, 0]


def test_zeros_alone() -> None:
    assert counted(torch.zeros(9)) == {"nonfinite": 0, "edges": [-2, -1, 1, 2], "counts": [0, 9, 0]}
    only = counted(torch.full((3,), math.nan))
    assert (only["nonfinite"], sum(only["counts"])) == (3, 0)


def test_a_wide_range_is_cut_at_its_lower_end() -> None:
    found = counted(torch.tensor([1.0, 2.0**-19, 2.0**-20, 2.0**-100]))
    assert len(found["counts"]) == 2 * SPAN + 1
    assert (found["edges"][-1], min(e for e in found["edges"] if e > 0)) == (2.0, 2.0**-19)
    assert found["counts"][SPAN] == 2


def test_a_large_tensor_is_counted_in_part_and_evenly() -> None:
    tensor = torch.zeros(1000, 512)
    tensor[:, ::2] = 1.0
    found = counted(tensor)
    total = sum(found["counts"])
    assert MOST // 2 < total <= MOST
    assert found["counts"][-1] / total == pytest.approx(0.5, abs=0.01)
