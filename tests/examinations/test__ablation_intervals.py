"""Intervals: against their definition, against scipy, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from torchwatch.examinations._ablation_fills import Orders
from torchwatch.examinations._ablation_intervals import crossed, paired, t_quantile


def by_definition(differences: np.ndarray, donors: np.ndarray) -> float:
    """Sum of the products of all pairs of residuals that share a sample."""
    residuals = differences - differences.mean()
    draws, count = residuals.shape
    entries = [(i, donors[r, i], residuals[r, i]) for r in range(draws) for i in range(count)]
    total = sum(a * b for i, k, a in entries for j, m, b in entries if {i, k} & {j, m})
    return total / differences.size**2 * count / (count - 1)


@pytest.mark.parametrize("draws", [1, 3])
def test_the_variance_is_the_sum_over_pairs_that_share_a_sample(draws):
    rng = np.random.default_rng(4)
    orders = Orders(15, draws, rng)
    donors = np.stack([orders.donors(d) for d in range(draws)])
    kind = rng.normal(size=15)
    differences = kind[None] + kind[donors] + 0.3 * rng.normal(size=(draws, 15))
    mean, error = crossed(differences, donors)
    # A pair of samples that exchange with each other in two draws shares both: the estimate counts it twice.
    assert mean == pytest.approx(differences.mean())
    assert error**2 == pytest.approx(by_definition(differences, donors), rel=0.03)


def coverage(weight: float, spurious: float, draws: int, count: int = 150, trials: int = 400) -> float:
    """How often the interval holds the true importance of a linear model's feature.

    With y = w x + ε and the prediction (w + s) x, the error is s² + σ² as it is, and w² + (w + s)² + σ² where
    x is another sample's.
    """
    rng = np.random.default_rng(11)
    truth = weight**2 + (weight + spurious) ** 2 - spurious**2
    held = 0
    for _ in range(trials):
        x, noise = rng.normal(size=(2, count))
        y = weight * x + 0.7 * noise
        orders = Orders(count, draws, rng)
        donors = np.stack([orders.donors(d) for d in range(draws)])
        model = weight + spurious
        mean, error = crossed((y - model * x[donors]) ** 2 - (y - model * x) ** 2, donors)
        held += abs(mean - truth) <= t_quantile(0.025, count - 1) * error
    return held / trials


@pytest.mark.parametrize("draws", [1, 5])
@pytest.mark.parametrize(("weight", "spurious"), [(0.0, 0.3), (1.0, 0.0), (1.0, 0.5)])
def test_intervals_hold_the_truth_as_often_as_they_say(weight, spurious, draws):
    assert coverage(weight, spurious, draws) >= 0.9


@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 99))
def test_no_change_is_zero_without_doubt(draws, count, seed):
    orders = Orders(count, min(draws, count - 1), np.random.default_rng(seed))
    donors = np.stack([orders.donors(d) for d in range(min(draws, count - 1))])
    assert crossed(np.zeros(donors.shape), donors) == (0.0, 0.0)
    assert paired(np.zeros(donors.shape)) == (0.0, 0.0)


def test_paired_is_the_t_interval_over_samples():
    differences = np.random.default_rng(0).normal(size=(3, 40)) + 1
    mean, error = paired(differences)
    half = t_quantile(0.025, 39) * error
    low, high = stats.t.interval(0.95, 39, loc=mean, scale=stats.sem(differences.mean(0)))
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("tail", [0.025, 0.05 / 2 / 129, 0.3])
@pytest.mark.parametrize("degrees", [1, 4, 499])
def test_quantiles_are_those_of_scipy(tail, degrees):
    assert t_quantile(tail, degrees) == pytest.approx(stats.t.isf(tail, degrees), rel=1e-6)


def test_a_single_sample_has_no_interval():
    assert np.isnan(crossed(np.ones((1, 1)), np.zeros((1, 1), int))[1])
    assert np.isnan(paired(np.ones((1, 1)))[1])
