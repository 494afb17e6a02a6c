import math

import numpy as np
import pytest
from scipy import stats

from torchwatch.statistics.bootstrap import mean_interval


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    ours = mean_interval(values, np.random.default_rng(2), draws=20_000)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.02)


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(9.0)
    first, again = (mean_interval(values, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert first[0] < 4 < first[1]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_what_cannot_be_told_is_nan(values):
    assert all(map(math.isnan, mean_interval(np.array(values), np.random.default_rng(0))))


def test_many_values_are_drawn_in_blocks():
    values = np.random.default_rng(0).normal(size=1_500_000)
    low, high = mean_interval(values, np.random.default_rng(1), draws=5)
    assert -0.01 < low <= high < 0.01
