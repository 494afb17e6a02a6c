"""Fills: who takes from whom, what mean and noise are, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.errors import UsageError
from torchwatch.examinations._ablation_elements import Element
from torchwatch.examinations._ablation_fills import Fills, Orders

WHOLE = Element("all", ((slice(0, 3), slice(0, 4)),))


@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 99))
def test_nobody_takes_from_itself_nor_twice_from_another(count, draws, seed):
    draws = min(draws, count - 1)
    orders = Orders(count, draws, np.random.default_rng(seed))
    donors = np.stack([orders.donors(d) for d in range(draws)])
    for row in donors:
        assert sorted(row) == list(range(count))
        assert (row != np.arange(count)).all()
    for taken in donors.T:
        assert len(set(taken)) == draws


def test_mean_and_noise_have_the_moments_of_each_place():
    home = torch.randn(4000, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 + torch.arange(4.0)
    piece = (slice(1, 2), slice(0, 4))
    for fill in ("mean", "noise"):
        fills = Fills(home, fill)
        job = fills.job(WHOLE, Orders(4000, 1, np.random.default_rng(0)), 0)
        values = fills.values(piece, job)
        assert values.shape == (4000, 1, 4)
        assert values.mean(0) == pytest.approx(home[:, 1:2].mean(0), abs=0.15)
        assert values.std(0) == pytest.approx(home[:, 1:2].std(0) * (fill == "noise"), abs=0.15)
        assert torch.equal(values, fills.values(piece, job))


def test_permuted_values_are_those_of_the_donors():
    home = torch.randn(9, 3, 4)
    orders = Orders(9, 1, np.random.default_rng(0))
    fills = Fills(home, "permutation")
    values = fills.values((slice(2, 3), slice(1, 3)), fills.job(WHOLE, orders, 0))
    assert torch.equal(values, home[orders.donors(0), 2:3, 1:3])


def test_half_precision_keeps_its_type():
    home = torch.randn(6, 3, 4).bfloat16()
    for fill in ("permutation", "mean", "noise", "zero"):
        fills = Fills(home, fill)
        job = fills.job(WHOLE, Orders(6, 1, np.random.default_rng(0)), 0)
        assert fills.values(WHOLE.pieces[0], job).dtype == torch.bfloat16


def test_what_is_there_already_is_left_alone():
    home = torch.randn(5, 3, 4)
    home[:, 0] = 7.0
    home[:, 1] = 0.0
    sevens, zeros = (Element(str(c), ((slice(c, c + 1), slice(0, 4)),)) for c in (0, 1))
    for fill in ("permutation", "mean", "noise"):
        fills = Fills(home, fill)
        assert fills.leaves_alone(sevens)
        assert fills.leaves_alone(zeros)
        assert not fills.leaves_alone(WHOLE)
    assert not Fills(home, "zero").leaves_alone(sevens)
    assert Fills(home, "zero").leaves_alone(zeros)
    home[2, 0, 1] = float("nan")
    assert not Fills(home, "permutation").leaves_alone(sevens)


def test_fills_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match="fill must be one of permutation, mean, noise, zero"):
        Fills(torch.zeros(3, 2), "median")
    with pytest.raises(UsageError, match="have no noise: ablate them with fill='permutation'"):
        Fills(torch.zeros(3, 2, dtype=torch.int64), "noise")
