from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from torchwatch.statistics.contrasts import cohen_d, contrast


def sides(seed=0, shift=0.0, left=12, right=20):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(left + right, 3))
    values[:left, 1] += shift
    return values, np.arange(left + right) < left


def test_effect_size_by_hand():
    """Means 2 and 5, both variances 1: three pooled standard deviations."""
    assert cohen_d([1, 2, 3], [4, 5, 6]) == pytest.approx(-3.0)
    assert np.isnan(cohen_d([1], [2, 3]))
    assert np.isnan(cohen_d([1, 1], [1, 1]))


@pytest.mark.parametrize("shift", [0.0, 0.6, 1.2])
def test_p_is_that_of_scipy(shift):
    values, left = sides(shift=shift)
    found = contrast(values, left, np.random.default_rng(1), draws=4000)
    for m in range(3):

        def difference(a, b, axis):
            return a.mean(axis) - b.mean(axis)

        wanted = scipy.stats.permutation_test(
            (values[left, m], values[~left, m]), difference, n_resamples=4000, vectorized=True,
            rng=np.random.default_rng(2),
        )  # fmt: skip
        assert found.p[m] == pytest.approx(wanted.pvalue, abs=0.04)
        t = scipy.stats.ttest_ind(values[left, m], values[~left, m])
        assert found.effect[m] == pytest.approx(t.statistic * np.sqrt(1 / 12 + 1 / 20))


def test_the_correction_only_raises_p_and_finds_what_is_planted():
    values, left = sides(shift=2.0)
    found = contrast(values, left, np.random.default_rng(0))
    assert (found.adjusted_p >= found.p).all()
    assert found.adjusted_p[1] < 0.01
    assert found.p.min() >= 1 / 2001


def test_without_a_difference_the_smallest_corrected_p_is_rarely_small():
    small = 0
    for seed in range(40):
        values, left = sides(seed)
        small += contrast(values, left, np.random.default_rng(seed), draws=200).adjusted_p.min() < 0.05
    assert small <= 6


def test_what_does_not_vary_differs_in_nothing():
    values, left = np.ones((10, 2)), np.arange(10) < 5
    values[:, 1] = np.arange(10)
    found = contrast(values, left, np.random.default_rng(0))
    assert np.isnan(found.effect[0])
    assert found.p[0] == found.adjusted_p[0] == 1
    assert found.p[1] < 0.05


def test_one_empty_side_is_no_comparison():
    found = contrast(np.random.default_rng(0).normal(size=(6, 2)), np.ones(6, bool), np.random.default_rng(0))
    assert (found.p == 1).all()
