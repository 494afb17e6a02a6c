from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.statistics import resampling


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_units_are_drawn_as_a_whole(labels):
    units = np.unique(labels, return_inverse=True)[1]
    drawn = resampling.weights(units, rng(), 20)
    assert drawn.shape == (20, units.size)
    for unit in range(units.max() + 1):
        mine = drawn[:, units == unit]
        assert (mine == mine[:, :1]).all()
    per_unit = np.stack([drawn[:, units == u][:, 0] for u in range(units.max() + 1)], 1)
    assert (per_unit.sum(1) == units.max() + 1).all()


def test_intervals_of_the_mean_are_as_wide_as_theory_says():
    values = rng(1).normal(size=400)
    low, high = resampling.mean_interval(values, resampling.weights(np.arange(400), rng()))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.15)


def test_drawing_units_widens_intervals_where_units_differ():
    units = np.repeat(np.arange(20), 20)
    values = rng(2).normal(size=20)[units] + 0.1 * rng(3).normal(size=400)
    alone = np.subtract(*resampling.mean_interval(values, resampling.weights(np.arange(400), rng())))
    together = np.subtract(*resampling.mean_interval(values, resampling.weights(units, rng())))
    assert together / alone > 3


@pytest.mark.slow
def test_correlation_and_slope_intervals_hold_their_values_in_95_percent():
    inside = 0
    for seed in range(60):
        draw = rng(seed)
        p = draw.normal(size=(120, 1))
        y = 0.5 * p + draw.normal(size=(120, 1))
        drawn = resampling.weights(np.arange(120), draw, 300)
        (r_low, r_high), (low, high) = resampling.relation_intervals(p, y, drawn)
        inside += bool(low[0] <= 0.5 <= high[0]) and bool(r_low[0] <= 0.447 <= r_high[0])
    assert inside >= 50


def test_constant_sides_have_no_interval_and_nothing_has_none():
    drawn = resampling.weights(np.arange(30), rng(), 50)
    r, slope = resampling.relation_intervals(np.full((30, 1), 0.1), rng().normal(size=(30, 1)), drawn)
    assert np.isnan([*r[0], *r[1], *slope[0], *slope[1]]).all()
    empty = resampling.relation_intervals(np.empty((0, 2)), np.empty((0, 2)), np.empty((50, 0)))
    assert np.isnan(np.array(empty)).all()
    assert empty[0][0].shape == (2,)


def test_max_t_finds_the_planted_label_and_is_uniform_without_one():
    labels = np.arange(400) % 8
    values = rng(4).normal(size=400)
    units = np.arange(400)
    planted = resampling.max_t(values + 1.5 * (labels == 3), labels, rng(), units, 300)
    assert planted[3] < 0.01
    assert (np.delete(planted, 3) > 0.5).all()
    smallest = [
        resampling.max_t(rng(i).normal(size=200), np.arange(200) % 8, rng(i), np.arange(200), 100).min()
        for i in range(40)
    ]
    assert np.mean(np.array(smallest) < 0.05) <= 0.15  # corrected for the eight labels


def test_a_unit_that_is_all_of_one_label_is_shuffled_as_one():
    """Ten subjects that differ at random must not make their sex look guilty."""
    units = np.repeat(np.arange(10), 30)
    labels = (units % 2).astype(np.int64)
    guilty = 0
    for seed in range(20):
        values = rng(seed).normal(size=10)[units] + 0.1 * rng(seed + 99).normal(size=300)
        guilty += resampling.max_t(values, labels, rng(seed), units, 100).min() < 0.05
    assert guilty <= 5
    wrong = resampling.max_t(rng(0).normal(size=10)[units], labels, rng(0), np.arange(300), 100).min()
    assert wrong < 0.05


def test_spread_between_groups_agrees_with_the_f_test():
    for effect in (0.0, 0.25, 0.6):
        labels = np.arange(120) % 4
        values = rng(5).normal(size=120) + effect * (labels == 1)
        expected = scipy.stats.f_oneway(*(values[labels == i] for i in range(4))).pvalue
        assert resampling.between_p(values, labels, rng()) == pytest.approx(expected, abs=0.05)


def test_nothing_that_varies_gives_p_one():
    assert resampling.between_p(np.ones(10), np.arange(10) % 2, rng()) == 1
    assert resampling.between_p(rng().normal(size=10), np.zeros(10, np.int64), rng()) == 1
    np.testing.assert_array_equal(
        resampling.max_t(np.ones(10), np.arange(10) % 2, rng(), np.arange(10)), [1, 1]
    )
