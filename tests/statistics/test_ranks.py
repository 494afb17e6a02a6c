import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from torchwatch.statistics.ranks import ranks, spearman, spearman_interval

few_values = st.lists(st.integers(-5, 5), min_size=1, max_size=40)
pairs = st.lists(st.tuples(st.integers(-6, 6), st.floats(-1e3, 1e3)), min_size=3, max_size=40)


@given(few_values)
def test_ranks_are_scipys_with_ties(values):
    assert ranks(np.array(values, dtype=float)).tolist() == stats.rankdata(values).tolist()


@given(pairs)
def test_spearman_is_scipys(values):
    a, b = np.array(values, dtype=float).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(spearman(a, b)), "a constant has no order"
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_pairs_with_nan_are_left_out_and_two_are_too_few():
    a, b = np.array([1, 2, 3, math.nan, 5.0]), np.array([2, 4, 9, 1, math.inf])
    assert spearman(a, b) == 1.0
    assert math.isnan(spearman(a[:2], b[:2]))
    with pytest.raises(ValueError, match="one length"):
        spearman(a, b[:3])


@pytest.mark.parametrize("true", [0.0, 0.6])
def test_the_interval_covers_the_truth_nineteen_times_in_twenty(true):
    rng = np.random.default_rng(1)
    normal = 2 * math.sin(math.pi * true / 6)  # normal correlation whose rank correlation is `true`
    covered = 0
    for _ in range(600):
        x, e = rng.normal(size=(2, 40))
        low, high = spearman_interval(spearman(x, normal * x + math.sqrt(1 - normal**2) * e), 40)
        covered += low <= true <= high
    assert 0.92 < covered / 600 < 0.985


def test_few_pairs_say_nothing():
    assert spearman_interval(0.5, 4) == (-1.0, 1.0)
    assert all(map(math.isnan, spearman_interval(math.nan, 40)))
    low, high = spearman_interval(1.0, 10)
    assert low > 0.9
    assert high == pytest.approx(1.0)
