from __future__ import annotations

import dataclasses
from types import SimpleNamespace

from torchwatch.engine import Incident
from torchwatch.records import Alert
from torchwatch.report.document import Callout, Code, Fold, Table, Text
from torchwatch.report.incidents import incident_cards

ROOT = Alert(
    state="resolved", check="dead-units", severity="warning", title="Units of relu2 are dead",
    detail="All 8 of them.", layer="relu2", metric="activations.dead_fraction", value=0.6, threshold=0.5,
    fix="Lower the rate.", snippet="nn.GELU()", count=3, since_step=1200, last_step=1300, worst=1.0,
    incident=1, root=True,
)  # fmt: skip
STORY = (
    "Since step 1200: dead. All 8 of them. The likely cause is x. What to do: Lower the rate. "
    "Seen with it: y."
)
SYMPTOM = Alert(
    check="vanishing-gradients", severity="critical", layer="conv1", title="gone", since_step=1250
)


def cards(*incidents: Incident):
    return incident_cards(SimpleNamespace(diagnosis=SimpleNamespace(incidents=incidents), autopsy=None))


def test_a_card_tells_cause_evidence_advice_and_symptoms():
    (card,) = cards(Incident(1, ROOT, (SYMPTOM,), STORY))
    assert card.severity == "critical"
    assert card.heading == "1. Units of relu2 are dead"
    assert ("root cause", "dead-units (warning)") in card.facts
    assert ("layer", "relu2") in card.facts
    assert ("since step", "1,200") in card.facts
    assert ("resolved after step", "1,300") in card.facts
    assert ("activations.dead_fraction", "0.6") in card.facts
    assert ("limit", "0.5") in card.facts
    assert ("worst", "1") in card.facts
    story, advice, code, fold = card.blocks
    assert story == Text("Since step 1200: dead. All 8 of them. The likely cause is x. Seen with it: y.")
    assert advice == Callout("info", "What to do:", "Lower the rate.")
    assert code == Code("nn.GELU()", "python")
    assert isinstance(fold, Fold)
    assert fold.summary == "1 symptom seen with it"
    assert isinstance(fold.blocks[0], Table)
    assert fold.blocks[0].rows == [["critical", "vanishing-gradients", "conv1", "1250", "gone"]]


def test_evidence_is_told_once_even_where_the_explanation_lacks_it():
    (card,) = cards(Incident(1, ROOT, (), "Something broke."))
    assert card.blocks[0] == Text("Something broke. All 8 of them.")


def test_what_is_unknown_is_left_out():
    bare = dataclasses.replace(ROOT, layer=None, value=None, threshold=None, worst=None, fix="", snippet=None)
    (card,) = cards(Incident(1, bare, (), STORY))
    assert len(card.blocks) == 1
    assert {k for k, _ in card.facts} == {"root cause", "since step", "resolved after step", "found"}


def test_the_model_itself_has_a_name_and_open_issues_last_to_the_end():
    (card,) = cards(Incident(1, dataclasses.replace(ROOT, layer="", state="opened"), (), STORY))
    assert ("layer", "(the model itself)") in card.facts
    assert ("until", "the end") in card.facts


def test_hundreds_of_symptoms_are_cut_and_counted():
    (card,) = cards(Incident(1, ROOT, (SYMPTOM,) * 120, STORY))
    fold = card.blocks[-1]
    assert isinstance(fold, Fold)
    assert len(fold.blocks[0].rows) == 50
    assert fold.blocks[1].text.startswith("And 70 more")
