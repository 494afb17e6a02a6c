from __future__ import annotations

import numpy as np

from torchwatch.report import trace


def test_short_curve_is_kept_as_it_is():
    steps, values = np.arange(1, 6), np.array([3.0, np.nan, 1.0, np.inf, 2.0])
    curve = trace.curve(steps, values)
    assert curve.steps.tolist() == [1, 3, 5]
    assert curve.mean.tolist() == curve.low.tolist() == [3.0, 1.0, 2.0]
    assert curve.bad.tolist() == [2, 4]
    assert not curve.thinned
    assert curve.drawable


def test_a_spike_of_one_step_in_a_million_survives_thinning():
    values = np.ones(1_000_000)
    values[123_456], values[777_777] = 50.0, -7.0
    curve = trace.curve(np.arange(1_000_000), values)
    assert curve.thinned
    assert len(curve.steps) == trace.BUCKETS
    assert curve.high.max() == 50.0
    assert curve.low.min() == -7.0
    assert abs(curve.steps[curve.high.argmax()] - 123_456) < 1_000_000 / trace.BUCKETS


def test_nan_alone_does_not_count_as_thinned_and_is_drawable():
    curve = trace.curve(np.arange(3), np.full(3, np.nan))
    assert not curve.thinned
    assert curve.drawable
    assert len(curve.steps) == 0


def test_moving_median_is_centred_and_ignores_a_spike():
    values = np.arange(100.0)
    values[10] = 1e30
    median = trace.moving_median(np.arange(100), values, 5)
    assert median.values[50] == 50.0
    assert median.values[9:12].max() <= 12.0


def test_moving_median_does_not_rise_before_a_jump():
    values = np.where(np.arange(200) < 100, 0.1, 2.3)
    median = trace.moving_median(np.arange(200), values, 17)
    assert median.values[:99].max() == 0.1
    assert median.values[101:].min() == 2.3


def test_layer_map_takes_medians_and_drops_layers_never_seen():
    values = np.array([[1.0, np.nan, np.nan], [3.0, np.nan, 5.0], [9.0, np.nan, np.nan]])
    bad = np.zeros((3, 3), bool)
    bad[0, 2] = True
    layers = trace.layer_map(["a", "never", "c"], np.array([1, 2, 3]), values, bad, last_step=3)
    assert layers is not None
    assert layers.names == ("a", "c")
    assert layers.values[0].tolist() == [1.0, 3.0, 9.0]
    assert layers.bad[1].tolist() == [True, False, False]
    assert layers.edges.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_layer_map_bins_many_observations_by_their_median():
    n = 1000
    values = np.where(np.arange(n) % 3 == 0, 100.0, 1.0)[:, None]
    layers = trace.layer_map(["a"], np.arange(1, n + 1), values, np.zeros((n, 1), bool), last_step=n)
    assert layers is not None
    assert layers.values.shape == (1, trace.MAP_BINS)
    assert (layers.values == 1.0).all()
    assert layers.edges[0] == 0.5
    assert layers.edges[-1] == n + 0.5


def test_layer_map_never_reaches_beyond_the_run():
    layers = trace.layer_map(
        ["a"], np.array([10, 20, 30]), np.ones((3, 1)), np.zeros((3, 1), bool), last_step=32
    )
    assert layers is not None
    assert layers.edges.tolist() == [9.5, 19.5, 29.5, 32.5]


def test_layer_map_of_nothing_is_none():
    assert trace.layer_map(["a"], np.empty(0, np.int64), np.empty((0, 1)), np.empty((0, 1), bool), 0) is None
    assert trace.layer_map(["a"], np.array([1]), np.array([[np.nan]]), np.array([[False]]), 1) is None
