"""From what the probe handed over to columns per layer: each number at its layer, nothing where none was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from torchwatch.probe import Frame
from torchwatch.probes._layer_columns import (
    Gradients,
    Grams,
    TakenCalls,
    UnitShares,
    by_place,
    columns,
    handed_over,
    unscaled,
)
from torchwatch.probes._moments import MOMENTS, arrange, reference
from torchwatch.probes._rare import gram
from torchwatch.records import Column, is_bad, is_missing
from torchwatch.schedule import unmeasured

WIDTH = 4


def frame() -> Frame:
    return Frame(unmeasured(1))


def decoded(found: Frame, *payloads: Any) -> dict[str, Column]:
    return columns(payloads, found.values(), WIDTH)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vector(tensor: torch.Tensor) -> torch.Tensor:
    found = reference(*arrange(tensor, None)).vector
    assert isinstance(found, torch.Tensor)
    return found


def test_calls_whose_numbers_are_there_and_calls_still_on_a_device_are_pooled_together() -> None:
    """A layer may be called here and there: on the CPU numbers are at hand, elsewhere a tensor is."""
    one, two, three = normal(6, 5), 3 + normal(2, 5, seed=1), normal(4, 7, seed=2)
    own = frame()
    slot = own.defer(torch.stack([vector(two), vector(three)]))
    found = decoded(
        own,
        TakenCalls([(1, 30, 6, math.nan)], [vector(one).tolist()]),
        TakenCalls([(1, 10, 2, math.nan), (3, 28, 4, 65504.0)], slot),
    )
    together = torch.cat([one, two]).double()
    assert found["mean"][1] == pytest.approx(float(together.mean()), rel=1e-5)
    assert found["std"][1] == pytest.approx(float(together.std(correction=0)), rel=1e-5)
    assert found["absmax"][3] == three.abs().max()
    assert found["headroom"][3] == pytest.approx(float(three.abs().max()) / 65504, rel=1e-5)
    assert is_missing(found["mean"]).tolist() == [True, False, True, False]
    assert found["mean"].dtype == np.float32


def test_gradients_of_several_calls_and_places_have_one_rms() -> None:
    one, two, three = normal(6, 5), normal(2, 5, seed=1), normal(9, seed=2)
    own = frame()
    slot = own.defer(torch.stack([two.square().sum().double()]))
    here = Gradients([(2, 30), (0, 9)], [float(one.square().sum()), float(three.square().sum())])
    found = decoded(own, here, Gradients([(2, 10)], slot))["grad_rms"]
    assert found[2] == pytest.approx(float(torch.cat([one, two]).square().mean().sqrt()), rel=1e-5)
    assert found[0] == pytest.approx(float(three.square().mean().sqrt()), rel=1e-5)
    assert is_missing(found).tolist() == [False, True, False, True]


def test_a_gradient_that_is_no_number_is_told_from_one_that_was_not_measured() -> None:
    found = decoded(frame(), Gradients([(0, 3), (1, 3), (2, 3)], [math.nan, math.inf, 0.0]))["grad_rms"]
    assert is_bad(found).tolist() == [True, True, False, False]
    assert is_missing(found).tolist() == [False, False, False, True]
    assert found[2] == 0


def test_units_of_several_widths_count_by_their_number() -> None:
    own = frame()
    slot = own.defer(torch.tensor([[0.5, 1.0, 0.0], [0.25, 1.0, math.nan]]))
    found = decoded(own, UnitShares([(1, 30), (1, 10), (2, 4)], slot))
    assert found["dead_fraction"][1:3] == pytest.approx([(0.5 * 30 + 10) / 40, 0])
    assert found["dormant_fraction"][1] == pytest.approx((0.25 * 30 + 10) / 40)
    assert is_bad(found["dormant_fraction"])[2]
    assert is_missing(found["dead_fraction"]).tolist() == [True, False, False, True]


def test_the_newest_shares_count() -> None:
    """Several merges in one step: what was known last is known."""
    own = frame()
    before = own.defer(torch.tensor([[0.9, 0.9], [0.8, 0.8]]))
    after = own.defer(torch.tensor([[0.1], [0.2]]))
    found = decoded(own, UnitShares([(0, 5), (1, 5)], before), UnitShares([(1, 5)], after))
    assert found["dead_fraction"][:2] == pytest.approx([0.9, 0.1])
    assert found["dormant_fraction"][:2] == pytest.approx([0.8, 0.2])


def test_as_long_as_no_window_is_full_there_are_no_dead_units_and_nothing_is_said_of_dormant_ones() -> None:
    found = decoded(frame(), TakenCalls([(0, 4, 2, math.nan)], [[0.0] * len(MOMENTS)]))
    assert is_missing(found["dead_fraction"]).all()
    assert "dormant_fraction" not in found


def test_geometry_lands_at_the_layers_in_whatever_order_they_were_called() -> None:
    one, two = normal(8, 6).double(), normal(8, 5, seed=1).double()
    own = frame()
    matrices = [gram(one), gram(two), gram(torch.zeros(8, 3))]
    slots = [own.defer(matrix) for matrix in matrices if matrix is not None]
    found = decoded(own, Grams([(3, 8), (0, 8), (2, 8)], slots))
    for layer, x in ((3, one), (0, two)):
        correlation = np.corrcoef(x.numpy())
        assert found["cosine"][layer] == pytest.approx(correlation[np.triu_indices(8, 1)].mean(), rel=1e-5)
    assert is_missing(found["cosine"]).tolist() == [False, True, True, False]
    assert is_missing(found["cka"]).tolist() == [True, True, True, False], "zeros are similar to nothing"


def test_statistics_that_are_defined_nowhere_are_left_out() -> None:
    own = frame()
    matrix = gram(torch.zeros(8, 3))
    assert matrix is not None
    found = decoded(own, Grams([(1, 8)], [own.defer(matrix)]))
    assert not found.keys() & {"cosine", "effective_rank", "cka"}


def test_the_factor_of_the_loss_is_taken_out_of_gradients_alone() -> None:
    found = decoded(frame(), Gradients([(1, 1)], [64.0]), TakenCalls([(1, 4, 2, math.nan)], [[4.0] * 8]))
    scaled = unscaled(found, 16.0)
    assert scaled["grad_rms"][1] == 0.5
    assert is_missing(scaled["grad_rms"]).tolist() == [True, False, True, True]
    assert scaled["mean"] is found["mean"]
    assert found["grad_rms"][1] == 8, "the column itself is not written to"
    assert unscaled(found, None) is unscaled(found, 0.0) is found


def test_values_are_told_by_where_they_are() -> None:
    meta = torch.zeros(2, device="meta")
    items: list[Any] = [1.0, torch.ones(2), 2.0, meta, torch.zeros(2)]
    places = by_place(items, lambda item: item)
    assert [len(place) for place in places] == [2, 2, 1]
    assert places[0] == [1.0, 2.0]
    own = frame()
    assert handed_over(own, [[1.0], [2.0]]) == [[1.0], [2.0]]
    slot = handed_over(own, [torch.ones(2), torch.zeros(2)])
    assert own.values()[slot].tolist() == [1, 1, 0, 0]
