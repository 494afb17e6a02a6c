import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.helpers_causes import CAUSES
from tests.helpers_patients import PATIENTS, admit, assert_untouched
from torchwatch.examinations import _evidence_relearning, _evidence_run
from torchwatch.examinations.verdict import weigh
from torchwatch.postmortem import autopsy
from torchwatch.results.relearning import Attempt, Relearning
from torchwatch.results.verdict import NAMES, Evidence

EVIDENCE = [
    "relearning",
    "predictions",
    "baselines",
    "activations",
    "gradient_flow",
    "data_quality",
    "verdict",
]


@pytest.mark.parametrize("cause", [c for c in CAUSES if c.name in ("dead block", "leaked split")], ids=str)
def test_the_planted_cause_is_named(cause):
    verdict = autopsy(cause.build(0), examine=EVIDENCE).verdict
    assert verdict.first.name == cause.blamed
    assert verdict.first.evidence_for


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_least_seven_of_eight_causes_are_named_over_five_seeds():
    missed = {}
    for seed in range(5):
        wrong = [
            c.name for c in CAUSES if autopsy(c.build(seed), examine=EVIDENCE).verdict.first.name != c.blamed
        ]
        missed[seed] = wrong
    assert all(len(wrong) <= 1 for wrong in missed.values()), missed


@pytest.mark.parametrize(
    "patient", [p for p in PATIENTS if p.name in ("signals", "dicts", "tokens")], ids=str
)
def test_the_patient_survives(patient, monkeypatch):
    monkeypatch.setattr("torchwatch.examinations._training._MOST_STEPS", 50)
    model, data = admit(patient)
    with assert_untouched(model):
        assert autopsy(model, data, examine=EVIDENCE).verdict is not None


def test_without_evidence_there_is_no_verdict():
    result = autopsy(nn.Linear(3, 1), (torch.randn(20, 3), torch.randn(20, 1)), examine=["verdict"])
    assert result.verdict is None
    assert "no examination gave evidence" in result.outcomes[0].reason


weights = st.floats(-5, 5).filter(lambda w: w != 0)


@given(st.lists(st.tuples(st.sampled_from(NAMES), weights), max_size=30))
def test_shares_add_up_and_every_observation_stands_on_its_side(said):
    found = [Evidence(name, weight, f"no. {i}", "run") for i, (name, weight) in enumerate(said)]
    hypotheses = weigh(found)
    assert math.fsum(h.share for h in hypotheses) == pytest.approx(1.0)
    assert [h.share for h in hypotheses] == sorted((h.share for h in hypotheses), reverse=True)
    told = [e for h in hypotheses for e in (*h.evidence_for, *h.evidence_against)]
    assert sorted(told, key=lambda e: e.says) == sorted(found, key=lambda e: e.says)
    for h in hypotheses:
        assert h.score == pytest.approx(math.fsum(e.weight for e in found if e.hypothesis == h.name))
        assert h.next_experiment


@given(st.lists(st.tuples(st.sampled_from(NAMES), weights), min_size=1, max_size=10), st.floats(0.1, 3))
def test_more_evidence_for_a_hypothesis_never_lowers_its_share(said, more):
    found = [Evidence(name, weight, "", "run") for name, weight in said]
    before = next(h.share for h in weigh(found) if h.name == "data")
    after = next(h.share for h in weigh([*found, Evidence("data", more, "", "run")]) if h.name == "data")
    assert after >= before


def attempt(name, skill, patient=0.1, width=0.03):
    gain = skill - patient
    return Attempt(
        name,
        name,
        1 - skill,
        1 - skill,
        skill,
        (skill - width, skill + width),
        gain,
        (gain - width, gain + width),
    )


def blamed(memorised=1.0, **skills):
    attempts = tuple(attempt(n, s, skills["patient"]) for n, s in skills.items())
    result = Relearning("squared error", 1.0, attempts, memorised, 32, 1000, 500, own_split=False)
    return weigh(_evidence_relearning.evidence(result))[0].name


@pytest.mark.parametrize(
    ("name", "skills"),
    [
        ("training", {"patient": 0.1, "continued": 0.6, "restarted": 0.6, "reference": 0.5}),
        ("training", {"patient": 0.1, "continued": 0.1, "restarted": 0.6, "reference": 0.7}),
        ("architecture", {"patient": 0.1, "continued": 0.1, "restarted": 0.1, "reference": 0.5}),
        ("task ceiling", {"patient": 0.2, "continued": 0.2, "restarted": 0.2, "reference": 0.15}),
        ("data", {"patient": 0.0, "continued": 0.0, "restarted": 0.0, "reference": 0.0}),
        (
            "data",
            {"patient": 0.0, "continued": 0.0, "restarted": 0.0, "reference": 0.0, "reference_within": 0.6},
        ),
    ],
)
def test_who_does_better_says_what_is_to_blame(name, skills):
    assert blamed(**skills) == name


def test_who_cannot_learn_by_heart_is_blocked():
    assert blamed(0.05, patient=0.0, continued=0.0, restarted=0.0, reference=0.4) == "architecture"


def test_a_small_gain_is_small_evidence():
    large, small = (
        next(h for h in weigh(_evidence_relearning.evidence(result)) if h.name == "training").score
        for result in (
            Relearning(
                "x", 1.0, (attempt("patient", 0.5, 0.5), attempt("continued", s, 0.5)), 1, 32, 9, 9, False
            )
            for s in (0.9, 0.54)
        )
    )
    assert large > 2 * small > 0


@dataclass
class Root:
    check: str
    category: str
    severity: str = "critical"
    since_step: int = 7
    title: str = "x"


@dataclass
class FakeDiagnosis:
    incidents: list = field(default_factory=list)


@pytest.mark.parametrize(
    ("root", "name"),
    [
        (Root("missing-zero-grad", "wiring"), "training"),
        (Root("train-val-leakage", "loss"), "data"),
        (Root("cnn-missing-pooling", "architecture"), "architecture"),
    ],
)
def test_roots_of_incidents_count_once(root, name):
    diagnosis = FakeDiagnosis([SimpleNamespace(root=root), SimpleNamespace(root=root)])
    (found,) = _evidence_run.evidence(diagnosis)
    assert found.hypothesis == name
    assert "step 7" in found.says


def test_bare_symptoms_point_nowhere():
    roots = [Root("loss-plateau", "loss"), Root("stall", "system"), Root("no-learning", "loss")]
    assert not list(_evidence_run.evidence(FakeDiagnosis([SimpleNamespace(root=r) for r in roots])))


def test_every_check_that_is_named_is_there():
    from torchwatch.check import all_checks

    assert set(_evidence_run._BY_CHECK) <= set(all_checks())
