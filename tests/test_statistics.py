from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from torchwatch import statistics as ours
from torchwatch.statistics.joint import tau_scale
from torchwatch.statistics.tails import f_tail, t_tail

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


@pytest.mark.parametrize("size", [8, 15, 40])
def test_slope_bounds_agree_with_scipy(size):
    y = np.random.default_rng(size).standard_normal(size) + 0.1 * np.arange(size)
    reference = stats.theilslopes(y, np.arange(size), 0.95)
    low, estimate, high = ours.slope_bounds(np.arange(size), y)
    assert estimate == pytest.approx(reference.slope)
    assert low == pytest.approx(reference.low_slope, abs=0.03)
    assert high == pytest.approx(reference.high_slope, abs=0.03)
    assert low < estimate < high


def test_few_points_leave_the_slope_open():
    assert ours.slope_bounds(np.arange(1), np.ones(1)) == (-math.inf, 0.0, math.inf)
    low, estimate, high = ours.slope_bounds(np.arange(3), np.array([1.0, 2.0, 3.0]))
    assert (low, estimate, high) == (-math.inf, 1.0, math.inf)


def test_noise_is_about_sigma_whatever_the_trend():
    rng = np.random.default_rng(0)
    trend = 5 * np.exp(-np.arange(400) / 100)
    assert 0.2 < ours.noise(trend + 0.25 * rng.standard_normal(400)) < 0.3
    assert 0.2 < ours.step_noise(trend + 0.25 * rng.standard_normal(400)) < 0.3
    assert ours.noise(np.linspace(3, 1, 50)) == pytest.approx(0, abs=1e-12)


def test_noise_needs_enough_values():
    assert math.isnan(ours.noise(np.ones(4)))
    assert math.isnan(ours.step_noise(np.ones(2)))
    assert math.isnan(ours.scatter(np.ones(0)))


def test_scatter_of_an_odd_number_of_values_is_mad_sigma():
    values = rng.normal(0, 3, 101)
    assert ours.scatter(values) == pytest.approx(ours.mad_sigma(values))
    assert ours.middle(values) == np.median(values)


def test_wiggle_is_sigma_and_takes_no_change_of_level_for_noise():
    noise = 0.25 * np.random.default_rng(0).standard_normal(20_000)
    assert ours.wiggle(noise) == pytest.approx(0.25, rel=0.02)
    assert ours.wiggle(np.array([0.1, 0.5, 0.9, 0.9, 0.3, 0.3, 0.2])) == 0
    assert math.isnan(ours.wiggle(np.ones(4)))


def test_noise_of_an_exponential_is_that_of_its_logarithm():
    values = np.exp(-np.arange(12.0))
    assert ours.noise_at(float(values[-1]), values) == pytest.approx(0, abs=1e-9)
    assert ours.noise(values) > 1e-4
    assert ours.noise_at(-1.0, values - 1) == ours.noise(values - 1)


@given(numbers)
def test_lag_one_is_numpys_correlation_of_scipys_ranks(values):
    y = np.array(values)
    slope = stats.theilslopes(y, np.arange(y.size)).slope
    ranks = stats.rankdata(y - slope * np.arange(y.size))
    ranks = ranks - ranks.mean()
    expected = np.correlate(ranks, ranks, "full")[y.size] / (ranks @ ranks) if ranks.any() else math.nan
    assert ours.lag_one(values) == pytest.approx(expected if y.size >= 4 else math.nan, nan_ok=True)


def test_lag_one_of_alternating_and_of_independent_values():
    assert ours.lag_one(np.arange(40) * 0.5 + (-1.0) ** np.arange(40)) < -0.9
    found = [ours.lag_one(rng.normal(size=50)) for _ in range(300)]
    assert np.mean(found) == pytest.approx(-1 / 50, abs=0.03)
    assert np.std(found) == pytest.approx(1 / math.sqrt(50), rel=0.15)


NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456
824 702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897
822 1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975
815 1020 906 901 1170 912 746 919 718 714 740
"""


def test_pettitt_finds_the_nile_of_1898():
    """Cobb, "The problem of the Nile", Biometrika 65 (1978): the flow changed after 1898, the 28th year."""
    found = ours.pettitt([float(v) for v in NILE.split()])
    assert found.at == 28
    assert found.p < 1e-6
    assert found.before > 1.2 * found.after


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=4, max_size=60))
def test_pettitts_statistic_is_the_largest_mann_whitney(values):
    n = len(values)
    found = ours.pettitt(values)
    each = [abs(t * (n - t) - 2 * stats.mannwhitneyu(values[:t], values[t:]).statistic) for t in range(1, n)]
    assert found.k == pytest.approx(max(each))
    assert found.k == pytest.approx(each[found.at - 1])
    assert found.p == pytest.approx(min(1.0, 2 * math.exp(-6 * found.k**2 / (n**3 + n**2))))


def test_pettitts_false_alarms_are_no_more_than_p_says():
    alarms = sum(ours.pettitt(rng.normal(size=40)).p < 0.05 for _ in range(1000))
    assert alarms <= 60
    assert ours.pettitt(np.r_[rng.normal(size=20), rng.normal(3, 1, 20)]).p < 1e-3


def test_log_scale_is_the_normal_scale_of_the_logarithm():
    norms = np.exp(rng.normal(-3, 0.7, 5001))
    found = ours.log_scale(norms)
    assert found.level == pytest.approx(np.median(norms))
    assert found.sigma == pytest.approx(stats.median_abs_deviation(np.log(norms), scale="normal"), rel=1e-4)
    assert found.sigma == pytest.approx(0.7, rel=0.05)


def test_log_scale_leaves_out_what_has_no_logarithm():
    assert ours.log_scale([1.0, 0.0, -2.0, math.inf, math.nan, 1.0]) == (1.0, 0.0, 2)
    level, sigma, count = ours.log_scale([0.0])
    assert (math.isnan(level), math.isnan(sigma), count) == (True, True, 0)


@given(st.floats(1e-3, 200), st.floats(0.5, 30), st.floats(0.5, 80))
def test_tail_of_the_f_distribution_is_scipys(f, d1, d2):
    assert f_tail(f, d1, d2) == pytest.approx(stats.f.sf(f, d1, d2), rel=1e-6, abs=1e-12)


def test_tail_of_the_f_distribution_at_its_ends():
    assert f_tail(0.0, 2, 5) == 1.0
    assert f_tail(math.inf, 2, 5) == 0.0


@given(st.floats(-50, 50), st.integers(1, 60))
def test_tail_of_students_distribution_is_scipys(t, degrees):
    assert t_tail(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-6, abs=1e-9)


def test_noise_beside_a_turn_does_not_take_the_turn_for_noise():
    fall_and_rise = np.abs(np.arange(-10.0, 11.0))
    sigma, degrees = ours.noise_beside(fall_and_rise, 10)
    assert (sigma, degrees) == (0.0, 18)
    assert ours.noise_beside(fall_and_rise, 0)[0] > 0, "the turn is elsewhere"
    noisy = fall_and_rise + 0.2 * rng.standard_normal((400, 21))
    assert np.mean([ours.noise_beside(v, 10)[0] for v in noisy]) == pytest.approx(0.2, rel=0.15)
    short = ours.noise_beside(np.array([1.0, 0.5]), 1)
    assert (math.isnan(short[0]), short[1]) == (True, 0)


def test_mahalanobis_is_the_classical_one_on_normal_data():
    covariance = np.array([[1.0, 0.8, 0.0], [0.8, 2.0, 0.3], [0.0, 0.3, 0.5]])
    sample = rng.multivariate_normal([5, -3, 0], covariance, 20_000)
    point = np.array([7.0, -5.0, 1.0])
    away = point - [5, -3, 0]
    found = ours.mahalanobis(point, sample)
    assert found.squared == pytest.approx(away @ np.linalg.inv(covariance) @ away, rel=0.1)
    assert found.p == pytest.approx(stats.chi2.sf(found.squared, 3), rel=0.1)
    np.testing.assert_allclose(found.scores, away / np.sqrt(np.diag(covariance)), rtol=0.05)


def test_tau_scale_is_sigma_with_the_precision_that_its_authors_give():
    sample = np.random.default_rng(1).normal(5, 3, (50, 2000))
    location, scale = tau_scale(sample)
    assert np.mean(location) == pytest.approx(5, abs=0.05)
    assert np.mean(scale) == pytest.approx(3, rel=0.04)
    efficiency = (np.mean(scale) ** 2 / 100) / np.var(scale)
    assert 0.7 < efficiency < 0.9, "a standard deviation has 1"
    assert tau_scale(np.full((9, 1), 2.0)) == (2.0, 0.0)


def test_mahalanobis_is_not_moved_by_a_fifth_of_wild_values():
    sample = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 500)
    sample[::5] = 1000.0
    assert ours.mahalanobis([2.0, -2.0], sample).p < 1e-6, "against the correlation"
    assert ours.mahalanobis([2.0, 2.0], sample).p > 1e-3, "along it"


@pytest.mark.parametrize("n", [30, 63])
def test_mahalanobis_hardly_ever_takes_a_point_like_the_others_for_an_outlier(n):
    found = [ours.mahalanobis(s[0], s[1:]).p for s in rng.normal(size=(500, n + 1, 4))]
    assert np.mean(np.array(found) < 0.01) < 0.03
    assert min(found) > 1e-6


def test_mahalanobis_needs_enough_others_and_a_least_sigma():
    assert ours.mahalanobis([1.0, 1.0], np.zeros((3, 2))).p == 1.0
    still = np.zeros((60, 2))
    assert ours.mahalanobis([0.01, 0.0], still).p < 1e-6
    assert ours.mahalanobis([0.01, 0.0], still, least_sigma=0.02).p > 0.1


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf, 2.0, 3.0]])
def test_too_few_values_for_ranks_give_no_verdict(values):
    assert ours.pettitt(values).p == 1.0
    assert math.isnan(ours.lag_one(values))
