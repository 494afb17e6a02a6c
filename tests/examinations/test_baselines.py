from __future__ import annotations

import numpy as np
import pytest
import sklearn.dummy
import sklearn.metrics
import torch
from torch.nn import functional

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from tests.helpers_scored import noise, said
from torchwatch.postmortem import autopsy


def regression(seed: int = 0, samples: int = 200):
    y = noise(samples, 1, seed=seed)
    return y + 0.5 * noise(samples, 1, seed=seed + 1), y


def test_mean_and_median_are_those_of_the_training_targets():
    p, y = regression()
    train = noise(500, 1, seed=5) ** 2 + 1
    found = said(p, y, "baselines", train_data=(torch.zeros(500, 1), torch.tensor(train)))
    assert not found.oracle
    assert found.fitted_on == 500
    assert found["mean"].error == pytest.approx(np.mean((y - train.mean()) ** 2), rel=1e-5)
    assert found["median"].error == pytest.approx(np.mean(np.abs(y - np.median(train))), rel=1e-5)
    assert found["mean"].model_error == pytest.approx(np.mean((y - p) ** 2), rel=1e-5)
    assert found["mean"].skill == pytest.approx(1 - found["mean"].model_error / found["mean"].error)
    assert found.remarks == ()


def test_without_training_data_they_are_an_oracle_and_skill_is_r2():
    p, y = regression()
    found = said(p, y, "baselines")
    assert found.oracle
    assert found["mean"].skill == pytest.approx(sklearn.metrics.r2_score(y, p), rel=1e-5)
    assert "oracle" in found.remarks[-1].text


def test_training_data_without_targets_are_said_to_be_of_no_use():
    p, y = regression()
    found = said(p, y, "baselines", train_data=[(torch.zeros(9, 1),)])
    assert found.oracle
    assert found.remarks[0].severity == "warning"
    assert "hold no targets" in found.remarks[0].text


def test_worse_than_naive_is_a_warning():
    p, y = regression()
    found = said(p + 4, y, "baselines")
    assert found.worse == ("mean", "median")
    assert found.remarks[0].severity == "warning"
    assert found.remarks[0].text.startswith("Worse than naive: the mean")
    assert found["mean"].skill_high < 0


def test_a_model_as_good_as_the_mean_is_called_no_better():
    _, y = regression()
    found = said(np.full_like(y, y.mean()) + 1e-3 * noise(*y.shape, seed=7), y, "baselines")
    assert found["mean"].skill_low <= 0 <= found["mean"].skill_high
    assert "No better than naive" in found.remarks[0].text


@pytest.mark.slow
def test_intervals_hold_the_true_skill():
    inside = 0
    for seed in range(40):
        p, y = regression(10 * seed, 150)
        b = said(p, y, "baselines", seed=seed)["mean"]
        inside += b.skill_low <= 0.75 <= b.skill_high
    assert inside >= 34


def test_skill_of_each_output_and_those_below():
    y = noise(300, 3)
    p = y + np.array([0.1, 0.1, 2.0]) * noise(300, 3, seed=1)
    found = said(p, y, "baselines")
    np.testing.assert_allclose(found["mean"].skill_by_output[:2], 0.99, atol=0.01)
    assert found["mean"].skill_by_output[2] < 0


def test_majority_and_prior_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.choice(3, 300, p=[0.6, 0.3, 0.1])
    logits = np.eye(3)[true] + noise(300, 3)
    found = said(logits, true, "baselines")
    p = functional.softmax(torch.tensor(logits), -1).numpy()
    dummy = sklearn.dummy.DummyClassifier(strategy="prior").fit(true, true)
    assert found["prior"].error == pytest.approx(sklearn.metrics.log_loss(true, dummy.predict_proba(true)))
    assert found["prior"].model_error == pytest.approx(sklearn.metrics.log_loss(true, p))
    assert found["majority"].error == pytest.approx(1 - dummy.score(true, true))
    assert found["majority"].model_error == pytest.approx(1 - np.mean(p.argmax(1) == true))


def test_a_class_unseen_in_training_costs_no_infinity():
    true = np.arange(30) % 3
    train = (torch.zeros(40, 3), torch.arange(40) % 2)
    found = said(np.eye(3)[true], true, "baselines", train_data=train)
    assert found["prior"].error == pytest.approx(-np.mean([np.log(21 / 43), np.log(21 / 43), np.log(1 / 43)]))


def test_labels_have_a_majority_each():
    true = np.stack([np.ones(40), np.zeros(40), np.arange(40) % 2], 1)
    found = said(noise(40, 3), true, "baselines")
    assert found["majority"].error == pytest.approx(0.5 / 3)
    assert found["majority"].skill_by_output.shape == (3,)


def test_tokens_are_compared_with_their_unigram():
    true = torch.randint(5, (20, 8), generator=torch.Generator().manual_seed(0))
    true[:, 0] = -100
    found = said(functional.one_hot(true.clamp(min=0), 5).double() * 3, true, "baselines")
    counts = torch.bincount(true[true >= 0], minlength=5).double()
    share = counts / counts.sum()
    assert found["unigram"].error == pytest.approx(float(-(share * share.log()).sum()))
    assert found["unigram"].skill > 0.5
    assert found["majority"].model_error == 0


def test_a_baseline_that_is_not_there_names_those_that_are():
    with pytest.raises(KeyError, match="mean, median"):
        said(*regression(), "baselines")["majority"]


def test_constant_targets_leave_no_skill_and_no_remark_of_a_failure():
    found = said(noise(30, 1), np.full((30, 1), 2.5), "baselines")
    assert np.isnan(found["mean"].skill)
    assert found.worse == ()


def test_groups_are_drawn_as_a_whole_where_there_are_enough():
    p, y = regression()
    alone = said(p, y, "baselines")
    grouped = said(p, y, "baselines", groups=[i // 10 for i in range(200)])
    assert (alone.unit, grouped.unit) == ("sample", "group")


def test_nothing_finite_is_not_compared():
    with pytest.raises(KeyError, match="nothing can be compared"):
        said(np.full((9, 1), np.nan), np.ones((9, 1)) * 2, "baselines")


def test_training_targets_of_another_shape_are_refused():
    p, y = regression()
    with pytest.raises(KeyError, match="train_data"):
        said(p, y, "baselines", train_data=(torch.zeros(9, 1), torch.randn(9, 3)))


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["baselines"], train_data=data)
    assert "baselines" in done, done.outcomes
