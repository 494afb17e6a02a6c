from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from torchwatch.statistics import classification

DECISIONS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60).map(np.array)


@settings(max_examples=30)
@given(DECISIONS)
def test_scores_equal_scikit_learn(rows):
    true, predicted = rows.T
    table = classification.by_class(true, predicted)
    assert classification.accuracy(true, predicted) == pytest.approx(
        sklearn.metrics.accuracy_score(true, predicted)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = sklearn.metrics.balanced_accuracy_score(true, predicted)
        precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
            true, predicted, labels=table.classes, zero_division=np.nan
        )
        macro = sklearn.metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert table.balanced_accuracy == pytest.approx(balanced)
    assert table.f1_macro == pytest.approx(macro)
    np.testing.assert_array_equal(table.support, support)
    np.testing.assert_allclose(table.precision, precision)
    np.testing.assert_allclose(table.recall, recall)
    np.testing.assert_allclose(table.f1, f1)


@settings(max_examples=30)
@given(DECISIONS)
def test_confusion_equals_scikit_learn(rows):
    true, predicted = rows.T
    found = classification.confusion(true, predicted, 6)
    np.testing.assert_array_equal(
        found, sklearn.metrics.confusion_matrix(true, predicted, labels=list(range(6)))
    )


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_equals_torchmetrics(rows):
    confidence = np.array([r[0] for r in rows])
    on_an_edge = np.isclose((confidence * 15) % 1, 0, atol=1e-4) | np.isclose(
        (confidence * 15) % 1, 1, atol=1e-4
    )
    confidence = np.where(on_an_edge, 0.55, confidence)  # theirs closes bins below, ours above, as Guo's
    right = np.array([r[1] for r in rows])
    expected = binary_calibration_error(
        torch.tensor(confidence, dtype=torch.float64), torch.tensor(right).long(), n_bins=15, norm="l1"
    )
    # theirs takes the probability of class 1 as the confidence in any case
    assert classification.calibration(confidence, right).ece == pytest.approx(float(expected), abs=1e-6)


def test_bins_are_closed_above_and_zero_is_in_the_first():
    found = classification.calibration(np.array([0.0, 0.2, 0.2000001, 1.0]), np.ones(4, bool), bins=5)
    np.testing.assert_array_equal(found.count, [2, 1, 0, 0, 1])


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda r: sum(r) > 0.1), min_size=1))
def test_entropy_lies_between_zero_and_that_of_equal_shares(rows):
    p = np.array(rows)
    p /= p.sum(1, keepdims=True)
    found = classification.entropy(p)
    assert (found >= 0).all()
    assert (found <= math.log(3) + 1e-9).all()


def test_entropy_of_certainty_is_zero_and_of_a_coin_log_two():
    np.testing.assert_allclose(classification.entropy([[1, 0], [0.5, 0.5]]), [0, math.log(2)])


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_holds_the_share_and_stays_inside(right, count):
    right = min(right, count)
    low, high = classification.wilson([right], [count])
    assert 0 <= low[0] <= right / count + 1e-12
    assert right / count - 1e-12 <= high[0] <= 1
    assert high[0] - low[0] > 0


def test_wilson_equals_scipy():
    import scipy.stats

    expected = scipy.stats.binomtest(7, 30).proportion_ci(0.95, "wilson")
    low, high = classification.wilson([7, 0], [30, 0])
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))
    assert np.isnan([low[1], high[1]]).all()


def test_chance_level_holds_for_calibrated_confidences_and_not_for_boasts():
    rng = np.random.default_rng(0)
    beyond = 0
    for _ in range(40):
        confidence = rng.uniform(0.5, 1, 300)
        right = rng.random(300) < confidence
        level = classification.ece_by_chance(confidence, rng)
        beyond += classification.calibration(confidence, right).ece > level
    assert beyond <= 7  # 5 % are expected, 2 of 40
    boast = np.full(300, 0.99)
    assert classification.calibration(boast, rng.random(300) < 0.7).ece > classification.ece_by_chance(
        boast, rng
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: classification.by_class(np.zeros(3, int), np.zeros((3, 1), int)),
        lambda: classification.accuracy(np.zeros((3, 1), int), np.zeros((3, 1), int)),
        lambda: classification.calibration(np.zeros(3), np.zeros((3, 1), bool)),
        lambda: classification.calibration(np.array([1.5]), np.array([True])),
        lambda: classification.confusion(np.array([3]), np.array([0]), 3),
    ],
)
def test_other_shapes_and_ranges_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_nothing_gives_nan_without_a_warning():
    nothing = np.empty(0, int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(classification.accuracy(nothing, nothing))
        assert math.isnan(classification.by_class(nothing, nothing).balanced_accuracy)
        assert math.isnan(classification.calibration(nothing, nothing).ece)
        assert math.isnan(classification.ece_by_chance(nothing, np.random.default_rng(0)))
