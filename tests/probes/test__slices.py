"""Slices: scattered runs of plain memory, bounded, never a copy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from torchwatch.probes._slices import RUN, slices_of, view


def members(*tensors: torch.Tensor) -> list[tuple[int, nn.Parameter]]:
    return [(i, nn.Parameter(t)) for i, t in enumerate(tensors)]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 200_000), st.integers(1, 4096))
def test_a_slice_lies_inside_its_parameter_and_has_its_length(numel, most) -> None:
    parameter = torch.arange(float(numel))
    (slices,) = slices_of(members(parameter), most)
    slices.before()
    read = slices._flat[0]
    assert read.numel() == numel or (most - RUN < read.numel() <= most and read.numel() < numel)
    assert len(set(read.tolist())) == read.numel()
    assert slices.weights[0] == pytest.approx(numel / read.numel())
    if read.numel() < numel and read.numel() >= 8 * RUN:
        assert read.max() >= 0.6 * numel  # it reaches over the parameter


def test_runs_do_not_walk_down_the_same_columns() -> None:
    for width in (512, 768, 1024, 3072, 4096):
        rows = view(torch.arange(1024 * width), 4096)
        columns = {int(start) % width // RUN for start in rows[:, 0]}
        assert len(columns) >= min(width // RUN, 256) / 7


def test_views_share_the_memory_also_of_transposed_and_complex_tensors() -> None:
    for tensor in (torch.randn(60, 80).t(), torch.randn(60, 80, dtype=torch.complex64), torch.tensor(1.0)):
        length = None if tensor.dim() == 0 else 512
        assert view(tensor, length).untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def test_what_is_no_plain_memory_is_left_out() -> None:
    odd = [
        torch.ones(4, device="meta"),
        torch.ones(0),
        torch.ones(4, 6)[:, ::2],
        torch.ones(4).expand(3, 4),
    ]
    assert slices_of(members(*odd), 7) == []
    lazy = nn.LazyLinear(2).weight
    assert slices_of([(0, lazy)], 7) == []
    freed = nn.Parameter(torch.ones(8))
    freed.untyped_storage().resize_(0)
    assert slices_of([(0, freed)], 7) == []


def test_moved_memory_is_noticed() -> None:
    parameter = nn.Parameter(torch.ones(100))
    (slices,) = slices_of([(0, parameter)], 4096)
    assert slices.current()
    parameter.data = torch.ones(100)
    assert not slices.current()
    del parameter
    assert not slices.current()


def test_many_large_parameters_share_a_budget() -> None:
    groups = slices_of(members(*[torch.zeros(2000) for _ in range(1000)]), 4096)
    assert sum(s._flat.shape[1] for s in groups) == 1000 * 512
