from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.statistics.variance import components


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 6))
def test_balanced_components_follow_from_the_f_statistic(seed, groups):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(groups), 5)
    values = rng.normal(size=(labels.size, 1)) + rng.normal(size=groups)[labels, None]
    between, within = components(values, labels)
    f = scipy.stats.f_oneway(*(values[labels == g, 0] for g in range(groups))).statistic
    assert between[0] == pytest.approx(max(0.0, (f - 1) * within[0] / 5))


def test_planted_variances_are_found_with_groups_of_any_size():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(400), rng.integers(1, 20, 400))
    values = 2 * rng.normal(size=400)[labels] + rng.normal(size=labels.size)
    between, within = components(values[:, None], labels)
    assert between[0] == pytest.approx(4, rel=0.15)
    assert within[0] == pytest.approx(1, rel=0.1)


def test_too_little_to_split_is_nan():
    for labels in (np.zeros(4, np.int64), np.arange(4)):
        assert np.isnan(np.array(components(np.ones((4, 1)), labels))).all()
    with pytest.raises(ValueError, match="must be"):
        components(np.ones(4), np.zeros(4, np.int64))
