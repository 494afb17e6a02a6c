from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from torchwatch import statistics as ours

rng = np.random.default_rng(0)
numbers = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=3, max_size=60)


@given(numbers)
def test_mad_sigma_is_scipys_normal_mad(values):
    expected = stats.median_abs_deviation(values, scale="normal")
    assert ours.mad_sigma(values) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_sigma_of_normal_noise_is_found_under_a_trend_and_outliers():
    noise = rng.normal(0, 2.0, 2000)
    trend = np.linspace(0, 500, 2000)
    noise[::50] += 1000.0
    assert ours.robust_sigma(noise + trend) == pytest.approx(2.0, rel=0.1)
    assert ours.mad_sigma(noise + trend) > 50, "without detrending the trend would count as noise"


@settings(max_examples=60)
@given(numbers, st.sampled_from([0.9, 0.95, 0.99]))
def test_theil_sen_is_scipys(values, confidence):
    ours_ = ours.theil_sen(values, confidence=confidence)
    slope, intercept, low, high = stats.theilslopes(values, alpha=confidence)
    assert tuple(ours_) == pytest.approx((slope, intercept, low, high), rel=1e-9, abs=1e-9)


def test_theil_sen_with_uneven_positions_is_scipys():
    x = np.sort(rng.choice(1000, 80, replace=False)).astype(float)
    y = 0.3 * x + rng.normal(0, 5, 80)
    assert tuple(ours.theil_sen(y, x)) == pytest.approx(tuple(stats.theilslopes(y, x)), rel=1e-12)


def test_theil_sen_of_many_points_is_thinned_but_finds_the_slope():
    y = -0.5 * np.arange(100_000) + rng.normal(0, 3, 100_000)
    assert ours.theil_sen(y).slope == pytest.approx(-0.5, rel=1e-3)


@given(numbers)
def test_mann_kendall_counts_as_kendalls_tau_does(values):
    s, z, p = ours.mann_kendall(values)
    n = len(values)
    ties = [c for c in np.unique(values, return_counts=True)[1] if c > 1]
    pairs = n * (n - 1) / 2
    untied = pairs - sum(c * (c - 1) / 2 for c in ties)
    if untied == 0:
        assert (s, z, p) == (0, 0.0, 1.0)
        return
    tau = stats.kendalltau(np.arange(n), values).statistic
    assert s == pytest.approx(tau * math.sqrt(pairs * untied), abs=1e-6)
    variance = (n * (n - 1) * (2 * n + 5) - sum(c * (c - 1) * (2 * c + 5) for c in ties)) / 18
    assert z == pytest.approx(np.sign(s) * max(0, abs(s) - 1) / math.sqrt(variance))
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6, abs=1e-12)


def test_mann_kendall_false_alarms_are_as_rare_as_p_says():
    alarms = sum(ours.mann_kendall(rng.normal(size=30)).p < 0.05 for _ in range(1000))
    assert 25 <= alarms <= 75


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_rolling_median_is_the_median_of_each_window(width):
    values = rng.normal(size=30)
    expected = [np.median(values[max(0, i - width + 1) : i + 1]) for i in range(30)]
    np.testing.assert_array_equal(ours.rolling_median(values, width), expected)


def test_rolling_median_of_fewer_values_than_its_width():
    np.testing.assert_array_equal(ours.rolling_median([3.0, 1.0], 5), [3.0, 2.0])
    assert ours.rolling_median([], 5).size == 0


def test_generalisation_loss_is_prechelts_definition():
    assert ours.generalisation_loss([1.0, 0.8, 0.5, 0.6]) == pytest.approx(20.0)
    assert ours.generalisation_loss([1.0, 0.8, 0.5]) == 0.0
    assert math.isnan(ours.generalisation_loss([0.5, -0.1]))


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, math.nan]])
def test_nothing_finite_gives_nan_and_no_warning(values):
    assert math.isnan(ours.median(values))
    assert math.isnan(ours.mad_sigma(values))
    assert math.isnan(ours.robust_sigma(values))
    assert math.isnan(ours.theil_sen(values).slope)
    assert math.isnan(ours.generalisation_loss(values))
    assert ours.mann_kendall(values) == (0, 0.0, 1.0)


def test_non_finite_values_are_left_out_with_their_positions():
    values = [0.0, math.nan, 2.0, math.inf, 4.0, 5.0]
    assert ours.theil_sen(values).slope == pytest.approx(1.0)
    assert ours.median(values) == 3.0
