from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torchwatch.statistics import metrics


@st.composite
def pairs(draw, least=2):
    """Predictions and targets of one shape (N,) or (N, K) that vary by more than rounding."""
    shape = draw(
        st.one_of(st.tuples(st.integers(least, 30)), st.tuples(st.integers(least, 30), st.integers(1, 4)))
    )
    whole = st.integers(-1000, 1000).map(lambda i: i / 8)
    return draw(hnp.arrays(np.float64, shape, elements=whole)), draw(
        hnp.arrays(np.float64, shape, elements=whole)
    )


def columns(array):
    return [array] if array.ndim == 1 else list(array.T)


def by_column(measure, p, y):
    return np.array([measure(a, b) for a, b in zip(columns(p), columns(y), strict=True)])


def varies(*arrays):
    return all((np.ptp(c) > 0) for a in arrays for c in columns(a))


@settings(max_examples=30)
@given(pairs())
def test_errors_equal_scikit_learn(pair):
    p, y = pair
    mse = np.atleast_1d(metrics.rmse(p, y)) ** 2
    np.testing.assert_allclose(mse, by_column(lambda a, b: sklearn.metrics.mean_squared_error(b, a), p, y))
    mae = by_column(lambda a, b: sklearn.metrics.mean_absolute_error(b, a), p, y)
    np.testing.assert_allclose(np.atleast_1d(metrics.mae(p, y)), mae)


@settings(max_examples=30)
@given(pairs())
def test_r2_equals_scikit_learn_and_is_nan_for_constant_targets(pair):
    p, y = pair
    found = np.atleast_1d(metrics.r2(p, y))
    for value, a, b in zip(found, columns(p), columns(y), strict=True):
        if np.ptp(b) > 0:
            assert value == pytest.approx(sklearn.metrics.r2_score(b, a), rel=1e-9, abs=1e-9)
        else:
            assert math.isnan(value)


@settings(max_examples=30)
@given(pairs(least=3))
def test_pearson_and_slope_equal_scipy(pair):
    p, y = pair
    r, slope = np.atleast_1d(metrics.pearson(p, y)), np.atleast_1d(metrics.calibration_slope(p, y))
    for found, b, a, t in zip(r, slope, columns(p), columns(y), strict=True):
        if not varies(a, t):
            assert math.isnan(found)
            continue
        fitted = scipy.stats.linregress(a, t)
        assert found == pytest.approx(fitted.rvalue, abs=1e-9)
        assert b == pytest.approx(fitted.slope, rel=1e-9, abs=1e-9)


@settings(max_examples=30)
@given(pairs(least=3))
def test_slope_is_r_over_the_ratio_of_spreads(pair):
    p, y = pair
    r, ratio = np.atleast_1d(metrics.pearson(p, y)), np.atleast_1d(metrics.std_ratio(p, y))
    slope = np.atleast_1d(metrics.calibration_slope(p, y))
    fine = np.isfinite(r)
    np.testing.assert_allclose(slope[fine], (r / ratio)[fine], atol=1e-9)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auroc_equals_scikit_learn(rows):
    scores, labels = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if labels.all() or not labels.any():
        assert math.isnan(metrics.auroc(scores, labels))
    else:
        assert metrics.auroc(scores, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))


MEASURES = (
    metrics.rmse, metrics.mae, metrics.nrmse, metrics.r2, metrics.std_ratio, metrics.pearson,
    metrics.calibration_slope,
)  # fmt: skip


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("first", "second"),
    [((5,), (5, 1)), ((5, 1), (5,)), ((5, 2), (5, 1)), ((5,), (4,)), ((5, 1, 1), (5, 1, 1))],
)
def test_shapes_are_never_broadcast(measure, first, second):
    with pytest.raises(ValueError, match=r"differ in shape|must be"):
        measure(np.zeros(first), np.ones(second))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_columns_are_scored_alone_and_one_column_as_a_vector(measure):
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    np.testing.assert_allclose(measure(p, y), [measure(p[:, i], y[:, i]) for i in range(3)])
    assert measure(p[:, :1], y[:, :1]).shape == (1,)
    assert measure(p[:, 0], y[:, 0]).shape == ()


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("size", [0, 1, 2])
def test_degenerate_sizes_say_nan_and_do_not_warn(measure, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(np.full((size, 2), 0.1), np.full((size, 2), 0.1))
    assert found.shape == (2,)
    if measure in (metrics.rmse, metrics.mae) and size:
        assert (found == 0).all()
    else:
        assert np.isnan(found).all()


def test_nan_in_one_column_leaves_the_others():
    p, y = np.arange(8.0).reshape(4, 2), np.ones((4, 2))
    p[0, 0] = np.nan
    found = metrics.rmse(p, y)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(np.sqrt(np.mean((p[:, 1] - 1) ** 2)))


def test_a_constant_of_rounding_errors_has_no_spread():
    assert metrics.std(np.full(7, 0.1)) == 0
    assert math.isnan(metrics.pearson(np.full(7, 0.1), np.arange(7.0)))


def test_the_best_predictor_of_a_weak_signal_spreads_by_its_correlation():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=20_000)
    y = 0.3 * signal + rng.normal(size=20_000)
    p = 0.3 * signal
    assert float(metrics.std_ratio(p, y)) == pytest.approx(float(metrics.pearson(p, y)), abs=0.02)
    assert float(metrics.calibration_slope(p, y)) == pytest.approx(1, abs=0.05)


def test_auroc_refuses_other_shapes():
    with pytest.raises(ValueError, match="both be"):
        metrics.auroc(np.zeros((3, 1)), np.array([True, False, True]))
