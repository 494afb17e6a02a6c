from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from tests.helpers_scored import noise, said
from torchwatch.examinations import failures
from torchwatch.postmortem import autopsy
from torchwatch.results import plain


def slice_of(found, column):
    return next(s for s in found.slices if s.column == column)


def test_the_worst_fifty_are_ranked_with_all_that_is_known_of_them():
    y = noise(200, 2)
    p = y.copy()
    p[17] += 9
    p[60, 1] -= 5
    meta = {"file": [f"f{i}.edf" for i in range(200)], "age": list(range(200))}
    found = said(p, y, "failures", meta, groups=[f"s{i % 7}" for i in range(200)])
    assert len(found.worst) == 50
    first, second = found.worst[:2]
    assert (first.index, second.index) == (17, 60)
    assert first.error == pytest.approx(81)
    assert second.error == pytest.approx(12.5)
    assert first.prediction == pytest.approx(tuple(p[17]), rel=1e-5)
    assert first.target == pytest.approx(tuple(y[17]), rel=1e-5)
    assert first.metadata == {"file": "f17.edf", "age": 17}
    assert first.group == "s3"
    errors = [f.error for f in found.worst]
    assert errors == sorted(errors, reverse=True)
    json.dumps(plain(found), allow_nan=False)


def test_indices_are_places_in_the_data_not_among_the_samples():
    y = noise(100, 1)
    p = y + (np.arange(100) == 90)[:, None] * 30.0
    data = torch.utils.data.TensorDataset(torch.tensor(p), torch.tensor(y))
    for seed in range(20):
        found = autopsy(torch.nn.Identity(), data, examine=["failures"], samples=50, seed=seed)["failures"]
        if found.worst[0].error > 100:
            assert found.worst[0].index == 90
            return
    raise AssertionError("the sample was never chosen")


def test_a_bad_slice_of_metadata_is_found_and_the_others_are_not():
    p = noise(400, 1)
    scanner = np.array(["A", "B", "C", "D"])[np.arange(400) % 4]
    y = p + noise(400, 1, seed=1) * np.where(scanner == "C", 1.0, 0.4)[:, None]
    meta = {"scanner": list(scanner), "age": list(noise(400, seed=2)), "sex": ["f"] * 200 + ["m"] * 200}
    found = said(p, y, "failures", meta)
    warned = [r.text for r in found.remarks if r.severity == "warning"]
    assert len(warned) == 1
    assert "where scanner is C" in warned[0]
    table = slice_of(found, "scanner")
    assert table.names == ("A", "B", "C", "D")
    assert table.p[2] < 0.01 < min(np.delete(table.p, 2))
    mine = scanner == "C"
    assert table.error[2] == pytest.approx(np.mean((p - y)[mine] ** 2), rel=1e-5)
    assert table.error_low[2] < table.error[2] < table.error_high[2]


@pytest.mark.slow
def test_healthy_slices_are_quiet():
    loud = 0
    for seed in range(12):
        p = noise(200, 1, seed=seed)
        meta = {f"column{i}": list(np.random.default_rng(seed + i).integers(0, 6, 200)) for i in range(3)}
        loud += bool(said(p, p + noise(200, 1, seed=seed + 1), "failures", meta).remarks)
    assert loud <= 1


def test_predictions_that_boast_fail_where_they_are_extreme():
    y = noise(400, 1)
    found = said(y + noise(400, 1, seed=1), y, "failures")
    assert any("where predicted value is" in r.text for r in found.remarks)


def test_the_best_predictor_of_a_weak_signal_has_no_bias_by_predicted_value():
    """Sliced by target it would look biased everywhere; sliced by prediction it is not."""
    signal = noise(3000, 1)
    y = signal / 3 + noise(3000, 1, seed=1)
    table = slice_of(said(signal / 3, y, "failures"), "predicted value")
    assert len(table.names) == 10
    assert np.abs(table.bias).max() < 0.2
    shrunk = slice_of(said(signal / 30, y, "failures"), "predicted value")
    assert shrunk.bias[0] < -0.4
    assert shrunk.bias[-1] > 0.4


def test_classes_are_sliced_by_prediction_and_confidence():
    logits = torch.tensor(noise(300, 3) * 2)
    found = said(logits, logits.argmax(1), "failures", class_names=["x", "y", "z"])
    assert slice_of(found, "predicted class").names == ("x", "y", "z")
    assert slice_of(found, "confidence").count.sum() == 300
    assert np.isnan(slice_of(found, "confidence").bias).all()
    assert set(found.worst[0].prediction) <= {"x", "y", "z"}
    assert 0 < found.worst[0].confidence < 1
    assert found.error_name == "negative log-likelihood (nats)"


def test_columns_that_cannot_be_sliced_say_why():
    meta = {
        "file": [f"f{i}" for i in range(60)],
        "same": ["a"] * 60,
        "box": [{"x": i} for i in range(60)],
    }
    found = said(noise(60, 1), noise(60, 1, seed=1), "failures", meta)
    assert set(found.not_sliced) == {"file", "same", "box"}
    assert found.not_sliced["file"] == "it has 60 distinct values"


def test_numbers_are_sliced_by_quantiles_and_few_by_value():
    meta = {"age": list(range(100)), "dose": [0, 1] * 50}
    found = said(noise(100, 1), noise(100, 1, seed=1), "failures", meta)
    assert list(slice_of(found, "age").count) == [20] * 5
    assert slice_of(found, "dose").names == ("0", "1")


def test_missing_values_are_in_no_slice():
    values = [float("nan")] * 20 + list(range(80))
    found = said(noise(100, 1), noise(100, 1, seed=1), "failures", {"age": values})
    assert slice_of(found, "age").count.sum() == 80


def test_nan_and_constant_predictions_do_no_harm():
    p, y = noise(40, 1), noise(40, 1, seed=1)
    p[3] = np.nan
    found = said(p, y, "failures")
    assert found.samples == 39
    assert 3 not in [f.index for f in found.worst]
    flat = said(np.zeros((40, 1)), y, "failures")
    assert flat.not_sliced["predicted value"] == "it has a single value"
    with pytest.raises(KeyError, match="no errors to rank"):
        said(np.full((4, 1), np.nan), np.full((4, 1), 2.0), "failures")


@pytest.mark.parametrize(("classifies", "severity"), [(True, "info"), (False, "warning")])
def test_mistakes_of_a_good_classifier_are_few_and_no_warning(classifies, severity):
    error = np.r_[np.full(5, 5.0), np.full(95, 0.01)]
    (remark,) = failures._remarks((), error, classifies=classifies)
    assert remark.severity == severity


def test_slices_of_a_group_column_compare_samples_and_subjects_are_drawn_as_a_whole_elsewhere():
    groups = [f"s{i // 20}" for i in range(400)]
    y = noise(400, 1)
    bad = np.array([g == "s4" for g in groups])[:, None]
    p = y + noise(400, 1, seed=1) * np.where(bad, 2.0, 0.4)
    sex = [["f", "m"][i // 20 % 2] for i in range(400)]
    found = said(p, y, "failures", {"subject": groups, "sex": sex}, groups="subject")
    subject = slice_of(found, "subject")
    assert subject.kind == "group"
    assert subject.p[4] < 0.01
    assert slice_of(found, "sex").p.min() > 0.01  # one bad subject does not accuse its sex


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["failures"])
    assert "failures" in done, done.outcomes
