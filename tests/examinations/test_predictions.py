from __future__ import annotations

import json
import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from tests.helpers_scored import noise, said
from torchwatch.examinations._predictions_numbers import reading
from torchwatch.postmortem import autopsy
from torchwatch.results import plain


def weak(samples: int = 800, seed: int = 0):
    """A signal that explains a tenth of the target's variance, and the best prediction from it."""
    signal = noise(samples, 1, seed=seed)
    return signal / 3, signal / 3 + noise(samples, 1, seed=seed + 1)


@pytest.mark.parametrize(
    ("change", "expected", "collapsed"),
    [
        (lambda p: p, "honest shrinkage", False),
        (lambda p: 0.1 * p, "over-shrunk", True),
        (lambda p: 0.001 * p, "collapsed", True),
        (lambda p: 0 * p + 3, "collapsed", True),
        (lambda p: 3 * p, "over-dispersed", False),
        (lambda p: -p, "against", False),
        (lambda p: noise(*p.shape, seed=9), "unrelated", False),
        (lambda p: 0.013 * noise(*p.shape, seed=9), "shrunk", False),
    ],
)
def test_each_way_to_go_wrong_has_its_reading(change, expected, collapsed):
    p, y = weak()
    found = said(change(p), y, "predictions")
    assert found.numbers.readings == (expected,)
    assert found.collapsed is collapsed
    assert found.remarks[0].severity == ("critical" if collapsed else "warning")


def test_a_strong_model_is_sound_and_says_nothing():
    p = noise(300, 1)
    found = said(p, p + 0.3 * noise(300, 1, seed=1), "predictions")
    assert found.numbers.readings == ("sound",)
    assert found.remarks == ()


def test_a_small_spread_names_both_readings_and_the_one_the_numbers_favour():
    p, y = weak()
    honest = said(p, y, "predictions").remarks[0].text
    shrunk = said(0.1 * p, y, "predictions").remarks[0].text
    for text in (honest, shrunk):
        assert "two readings" in text
        assert "collapsed towards the mean" in text
        assert "honest answer" in text
    assert "favour honest shrinkage" in honest
    assert "favour collapse" in shrunk


@pytest.mark.slow
def test_honest_shrinkage_is_told_from_collapse_in_twenty_seeds():
    right = 0
    for seed in range(20):
        p, y = weak(500, seed)
        right += said(p, y, "predictions").numbers.readings == ("honest shrinkage",)
        right += said(0.15 * p, y, "predictions").numbers.readings == ("over-shrunk",)
    assert right >= 38


def test_scores_are_those_of_scikit_learn_per_output():
    p, y = noise(60, 3), noise(60, 3, seed=1)
    s = said(p.astype(np.float32), y.astype(np.float32), "predictions").numbers
    np.testing.assert_allclose(
        s.rmse**2, sklearn.metrics.mean_squared_error(y, p, multioutput="raw_values"), 1e-5
    )
    np.testing.assert_allclose(s.r2, sklearn.metrics.r2_score(y, p, multioutput="raw_values"), 1e-4)
    assert s.names == ("output 0", "output 1", "output 2")
    np.testing.assert_allclose(s.nrmse, s.rmse / s.target_std)


@pytest.mark.parametrize(("p_shape", "y_shape"), [((40,), (40,)), ((40, 1), (40,)), ((40, 1), (40, 1))])
def test_targets_with_and_without_an_axis_give_the_same_scores(p_shape, y_shape):
    p = noise(40)
    model = nn.Flatten(0) if p_shape == (40,) else nn.Identity()
    x, y = torch.tensor(p).reshape(40, 1), torch.tensor(p + 0.1).reshape(y_shape)
    found = autopsy(model, (x, y), examine=["predictions"])["predictions"]
    assert float(found.numbers.rmse[0]) == pytest.approx(0.1, rel=1e-5)


def test_nan_predictions_are_counted_named_and_left_out():
    p, y = noise(50, 2), noise(50, 2, seed=1)
    p[7, 0], p[9, 1], y[3, 0] = np.nan, np.inf, np.nan
    found = said(p, y, "predictions")
    assert (found.nan_predictions, found.nan_targets, found.left_out) == (2, 1, 3)
    assert list(found.numbers.count) == [48, 49]
    fine = np.isfinite(p[:, 0]) & np.isfinite(y[:, 0])
    assert found.numbers.mae[0] == pytest.approx(np.abs(p - y)[fine, 0].mean())
    assert found.remarks[0].severity == "critical"
    assert "2 of 100 predicted values are NaN or infinite (samples 7, 9 " in found.remarks[0].text


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (np.zeros((30, 1)), np.full((30, 1), 2.5)),
        (np.ones((1, 1)), np.full((1, 1), 2.5)),
        (np.full((30, 1), np.nan), noise(30, 1)),
    ],
)
def test_degenerate_inputs_are_unknown_and_strict_json(p, y):
    found = said(p, y, "predictions")
    assert found.numbers.readings == ("unknown",)
    assert not found.collapsed
    assert math.isnan(found.numbers.nrmse[0])
    assert found.remarks
    json.dumps(plain(found), allow_nan=False)


def test_an_offset_is_named():
    p = noise(200, 1)
    found = said(p + 3, p + 0.3 * noise(200, 1, seed=1), "predictions")
    assert "above the targets on average" in found.remarks[-1].text


def test_many_outputs_keep_the_worst_and_say_how_many_collapsed():
    y = noise(500, 120)
    p = y * (np.arange(120) >= 80)
    found = said(p, y, "predictions")
    assert found.predictions.shape == (500, 100)
    assert set(found.shown[:80]) == set(range(80))
    assert found.collapsed
    assert found.remarks[0].text.startswith("80 of 120 outputs")
    np.testing.assert_allclose(found.residuals, (y - p)[:, found.shown])


def test_overall_is_the_median_of_the_outputs_that_have_a_number():
    y = noise(50, 4)
    y[:, 3] = 2.5
    s = said(y + np.array([1, 2, 9, 1]) * noise(50, 4, seed=1), y, "predictions").numbers
    assert s.overall("nrmse") == np.median(s.nrmse[:3])
    y[:] = 2.5
    assert math.isnan(said(y, y, "predictions").numbers.overall("nrmse"))


def test_reading_of_few_samples_is_unknown():
    numbers = dict.fromkeys(
        ("std_ratio", "slope", "pearson_low", "pearson_high", "slope_low", "slope_high"), 0.0
    )
    assert reading({"count": 9, "target_std": 1.0, **numbers}) == "unknown"


# ---------------------------------------------------------------------- classes


def classes(samples: int = 300, seed: int = 0, sharp: float = 2.0):
    logits = noise(samples, 4, seed=seed) * sharp
    p = functional.softmax(torch.tensor(logits), -1)
    true = torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)
    return torch.tensor(logits), true


def test_class_scores_are_those_of_scikit_learn():
    logits, true = classes()
    found = said(logits, true, "predictions", class_names=["a", "b", "c", "d"])
    s, p = found.classes, functional.softmax(logits, -1).numpy()
    predicted = p.argmax(1)
    assert s.accuracy == pytest.approx(sklearn.metrics.accuracy_score(true, predicted))
    assert s.balanced_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, predicted))
    assert s.f1_macro == pytest.approx(sklearn.metrics.f1_score(true, predicted, average="macro"))
    assert s.nll == pytest.approx(sklearn.metrics.log_loss(true, p))
    np.testing.assert_array_equal(s.confusion, sklearn.metrics.confusion_matrix(true, predicted))
    assert s.names == s.confusion_names == ("a", "b", "c", "d")
    assert not found.collapsed
    assert found.remarks == ()  # the labels were drawn with these very probabilities


def test_one_class_alone_is_a_collapse_unless_it_is_the_truth():
    logits, true = classes()
    logits = logits * 0.01
    logits[:, 2] += 5
    found = said(logits, true, "predictions")
    assert found.collapsed
    assert "collapsed to one class" in found.remarks[0].text
    rare = torch.where(torch.arange(300) < 2, 0, 2)
    assert not said(logits, rare, "predictions").collapsed


def test_overconfidence_is_told_with_its_side():
    logits, true = classes(sharp=1.0)
    texts = [r.text for r in said(logits * 6, true, "predictions").remarks]
    assert any("the model is overconfident" in t for t in texts)
    texts = [r.text for r in said(logits * 0.1, true, "predictions").remarks]
    assert any("the model is underconfident" in t for t in texts)


def test_classes_that_are_never_predicted_are_named():
    logits, true = classes()
    logits[:, 1] = -20
    true[:40] = 1
    texts = [r.text for r in said(logits, true, "predictions", class_names=list("abcd")).remarks]
    assert any("Never predicted" in t and "'b'" in t for t in texts)


def test_binary_and_multilabel_scores_are_those_of_scikit_learn():
    logits = noise(200, 3)
    true = (noise(200, 3, seed=1) + logits > 0).astype(np.float64)
    p = 1 / (1 + np.exp(-logits))
    many = said(logits, true, "predictions").classes
    assert many.f1_macro == pytest.approx(sklearn.metrics.f1_score(true, p > 0.5, average="macro"))
    assert many.accuracy == pytest.approx(1 - sklearn.metrics.hamming_loss(true, p > 0.5))
    assert many.nll == pytest.approx(
        np.mean([sklearn.metrics.log_loss(true[:, i], p[:, i]) for i in range(3)])
    )
    assert many.confusion is None
    one = said(logits[:, :1], true[:, 0], "predictions").classes
    assert one.balanced_accuracy == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(true[:, 0], p[:, 0] > 0.5)
    )
    assert one.nll == pytest.approx(sklearn.metrics.log_loss(true[:, 0], p[:, 0]))


def test_tokens_are_flattened_without_the_ignored_ones():
    logits = torch.tensor(noise(30, 5, 7))
    true = logits.argmax(-1)
    true[:, 0] = -100
    true[0, 1] = (true[0, 1] + 1) % 7
    found = said(logits, true, "predictions")
    assert found.task == "token"
    assert found.classes.count == 30 * 4
    assert found.left_out == 30
    assert found.classes.accuracy == pytest.approx(119 / 120)


def test_a_confusion_of_many_classes_keeps_the_frequent_ones():
    logits = torch.tensor(noise(600, 90))
    s = said(logits, torch.arange(600) % 90, "predictions").classes
    assert s.confusion.shape == (40, 40)
    assert s.confusion_names[-1] == "others"
    assert s.confusion.sum() == 600


def test_a_probability_of_zero_costs_much_but_not_infinity():
    found = said(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 10), torch.zeros(20, dtype=torch.long), "predictions"
    )
    assert 40 < found.classes.nll < 45


def test_nan_logits_are_counted_and_left_out():
    logits, true = classes()
    logits[4] = torch.nan
    found = said(logits, true, "predictions")
    assert (found.nan_predictions, found.classes.count) == (1, 299)
    assert "samples 4 " in found.remarks[0].text


def test_a_target_that_the_model_has_no_output_for_is_one_sentence():
    logits, true = classes()
    true[0] = 4
    with pytest.raises(KeyError, match="class 4, but the model has outputs for the classes 0 … 3"):
        said(logits, true, "predictions")


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["predictions"])
    assert "predictions" in done, done.outcomes
