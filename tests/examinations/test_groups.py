from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.helpers_patients import PATIENTS, admit, assert_untouched
from tests.helpers_scored import noise, said
from torchwatch.postmortem import autopsy
from torchwatch.results import plain

NAMES = np.array([f"site {i}" for i in range(12)])
OF = np.arange(480) % 12


def planted(seed: int = 0, bad: int | None = None, offset: float = 0.0):
    """Predictions of twelve groups; one of them bad, or each with an offset of its own."""
    y = noise(480, 1, seed=seed) + offset * noise(12, seed=seed + 5)[OF][:, None]
    size = np.where(bad == OF, 1.2, 0.5)[:, None]
    return y - offset * noise(12, seed=seed + 5)[OF][:, None] + size * noise(480, 1, seed=seed + 1), y


def test_metric_of_each_group_is_that_of_its_samples():
    p, y = planted()
    found = said(p, y, "groups", groups=list(NAMES[OF]))
    assert found.metric == "RMSE"
    for name, value, count in zip(found.names, found.value, found.count, strict=True):
        mine = NAMES[OF] == name
        assert count == mine.sum()
        assert value == pytest.approx(np.sqrt(np.mean((p - y)[mine] ** 2)), rel=1e-5)
    assert found.overall == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), rel=1e-5)
    assert (np.diff(found.value) <= 0).all()
    assert ((found.low < found.value) & (found.value < found.high)).all()
    json.dumps(plain(found), allow_nan=False)


@pytest.mark.slow
def test_the_planted_bad_group_is_found_in_nineteen_of_twenty_seeds():
    hits = 0
    for seed in range(20):
        p, y = planted(seed, bad=seed % 12)
        found = said(p, y, "groups", groups=list(NAMES[OF]))
        hits += found.worst == NAMES[seed % 12] and any("fails on the group" in r.text for r in found.remarks)
    assert hits >= 19


@pytest.mark.slow
def test_equal_groups_are_quiet():
    loud = sum(
        bool(said(*planted(100 + seed), "groups", groups=list(NAMES[OF])).remarks) for seed in range(20)
    )
    assert loud <= 1


def test_a_planted_bad_group_is_found_and_named():
    p, y = planted(0, bad=3)
    found = said(p, y, "groups", groups=list(NAMES[OF]))
    assert found.worst == "site 3"
    assert "fails on the group site 3" in found.remarks[0].text


def test_offsets_of_groups_show_as_residuals_between_them():
    p, y = planted(offset=1.0)
    found = said(p, y, "groups", groups=list(NAMES[OF]))
    assert found.split("residuals").share > 0.5
    assert found.split("predictions").share < 0.1
    assert any("offset that each group has" in r.text for r in found.remarks)


def test_a_model_that_only_tells_groups_apart_is_told():
    level = noise(12)[OF][:, None] * 2
    y = level + noise(480, 1, seed=1)
    varied = said(level + 0.3 * noise(480, 1, seed=2), y, "groups", groups=list(NAMES[OF]))
    constant = said(level, y, "groups", groups=list(NAMES[OF]))
    for found in (varied, constant):
        assert found.pearson_between > 0.9
        assert any("not what happens inside" in r.text for r in found.remarks)
    assert varied.within_low < 0 < varied.within_high
    knows = said(y + noise(480, 1, seed=3), y, "groups", groups=list(NAMES[OF]))
    assert knows.pearson_within == pytest.approx(0.7, abs=0.08)
    assert not any("not what happens inside" in r.text for r in knows.remarks)


def test_groups_of_fewer_than_five_are_marked_and_judge_nothing():
    groups = ["big"] * 50 + ["large"] * 46 + ["tiny"] * 4
    y = noise(100, 1)
    p = y + np.where(np.array(groups) == "tiny", 9.0, 0.5)[:, None] * noise(100, 1, seed=1)
    found = said(p, y, "groups", groups=groups)
    assert dict(zip(found.names, found.few, strict=True)) == {"tiny": True, "big": False, "large": False}
    assert found.worst in ("big", "large")
    assert "1 of 3 groups have fewer than 5 samples" in found.remarks[-1].text


def test_only_tiny_groups_say_so():
    found = said(noise(8, 1), noise(8, 1, seed=1), "groups", groups=[i // 2 for i in range(8)])
    assert found.worst is None
    assert np.isnan(found.spread)
    assert "nothing can be said" in found.remarks[-1].text


def test_accuracy_per_group_has_wilsons_interval():
    logits = torch.tensor(noise(200, 3))
    true = logits.argmax(1)
    true[:10] = (true[:10] + 1) % 3
    found = said(logits, true, "groups", groups=["a"] * 20 + ["b"] * 180)
    assert (found.names, list(found.value)) == (("a", "b"), [0.5, 1.0])
    assert found.higher_is_better
    assert found.low[0] == pytest.approx(0.299, abs=0.001)
    assert found.low[1] > 0.97
    assert found.high[1] == pytest.approx(1.0)
    assert np.isnan(found.pearson_within)


def test_a_classifier_without_groups_is_compared_by_true_class():
    logits = torch.tensor(noise(150, 3))
    true = torch.where(torch.arange(150) < 50, 2, logits.argmax(1))
    found = said(logits, true, "groups", class_names=["x", "y", "z"])
    assert found.by == "class"
    assert found.worst == "z"
    assert any("the class z" in r.text for r in found.remarks)


def test_several_outputs_are_put_on_one_scale():
    y = noise(240, 2) * [1, 1000]
    level = noise(6)[np.arange(240) % 6][:, None] * [3, 0]
    found = said(y, y + level, "groups", groups=list(np.arange(240) % 6))
    assert 0.2 < found.split("residuals").share <= 1


def test_outputs_with_gaps_are_left_out_of_the_split_alone():
    p, y = planted(offset=1.0)
    gaps = np.where(np.arange(480)[:, None] % 7 == 0, np.nan, y)
    found = said(np.hstack([p, p]), np.hstack([y, gaps]), "groups", groups=list(NAMES[OF]))
    assert found.split("residuals").share > 0.5
    assert found.count.sum() == 480


@pytest.mark.parametrize(
    ("known", "match"),
    [({}, "no groups were given"), ({"groups": ["a"] * 30}, "of one group")],
)
def test_nothing_to_compare_says_why(known, match):
    with pytest.raises(KeyError, match=match):
        said(noise(30, 1), noise(30, 1, seed=1), "groups", {"site": ["a", "b"] * 15}, **known)


def test_the_columns_that_could_be_groups_are_named():
    with pytest.raises(KeyError, match="the metadata columns are site"):
        said(noise(30, 1), noise(30, 1, seed=1), "groups", {"site": ["a", "b"] * 15})


@pytest.mark.parametrize("patient", PATIENTS, ids=str)
def test_the_patient_survives(patient):
    model, data = admit(patient)
    with assert_untouched(model):
        done = autopsy(model, data, examine=["groups"], groups=[i % 3 for i in range(24)])
    assert "groups" in done, done.outcomes
