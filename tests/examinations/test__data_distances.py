"""Distances against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from torchwatch.examinations._data_distances import (
    kolmogorov,
    ks,
    variation,
    variation_by_chance,
    wasserstein,
)

values = st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=40).map(np.array)


@settings(max_examples=60)
@given(values, values)
def test_statistics_are_scipys(a: np.ndarray, b: np.ndarray) -> None:
    assert ks(a, b)[0] == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("sizes", [(100, 100), (500, 200)])
def test_p_is_near_the_exact_one(shift: float, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(sizes[0]), rng.standard_normal(sizes[1]) + shift
    exact = stats.ks_2samp(a, b, method="exact").pvalue
    assert ks(a, b)[1] == pytest.approx(exact, rel=0.15, abs=1e-3)


def test_kolmogorov_is_scipys() -> None:
    for x in (0.1, 0.3, 0.7, 1.0, 1.36, 2.0, 3.0):
        assert kolmogorov(x) == pytest.approx(stats.kstwobign.sf(x), abs=1e-9)


def test_variation() -> None:
    assert variation(np.array([5, 5]), np.array([10, 0])) == pytest.approx(0.5)
    assert variation(np.array([1, 2, 3]), np.array([2, 4, 6])) == 0
    assert math.isnan(variation(np.array([0, 0]), np.array([1, 1])))
    by_chance = variation_by_chance(np.array([50, 50]), np.array([50, 50]), np.random.default_rng(0), 2000)
    assert by_chance == pytest.approx(1.96 * math.sqrt(0.25 * 2 / 100), rel=0.1)


def test_nothing_to_compare_is_not_zero() -> None:
    empty, one = np.empty(0), np.ones(3)
    assert math.isnan(ks(empty, one)[0])
    assert math.isnan(wasserstein(one, empty))
