import dataclasses

import pytest

from torchwatch.check import all_checks
from torchwatch.examinations.examination import all_examinations
from torchwatch.report import evidence, html, markdown
from torchwatch.report.autopsy import page_names
from torchwatch.report.document import Card, See
from torchwatch.report.incidents import incident_cards
from torchwatch.report.sections import sections
from torchwatch.report.words import NOT_EXAMINED
from torchwatch.results import About, Autopsy, Outcome, Remark


@dataclasses.dataclass(frozen=True)
class Seen:
    remarks: tuple[Remark, ...]


def autopsy(*outcomes):
    about = About(
        "Net", 10, "regression", "given", 9, 9, {"input": (3,)}, "input", ("feature",), (1,), "cpu", 0
    )
    return Autopsy(about, outcomes)


def pointers(report, *remarks, name="activations"):
    outcome = Outcome(name, "Activations", "done", Seen(tuple(remarks)))
    cards = incident_cards(dataclasses.replace(report, autopsy=autopsy(outcome)))
    return [b for card in cards for b in card.blocks if isinstance(b, See)]


def test_an_incident_points_at_the_examination_that_shows_it(report_of):
    dead = Remark("critical", "61% of the units of encoder.2 are dead.")
    (found, *_) = pointers(report_of("faulty"), Remark("info", "fine"), dead)
    assert found.anchor == "autopsy-activations"
    assert found.text == dead.text


def test_the_layer_of_the_incident_comes_first(report_of):
    report = report_of("faulty")
    layer = next(i.root.layer for i in report.diagnosis.incidents if i.root.layer)
    other, own = Remark("critical", "a layer elsewhere"), Remark("info", f"{layer} is silent")
    assert any(p.text == own.text for p in pointers(report, other, own))


def test_what_was_not_done_is_not_pointed_at(report_of):
    failed = autopsy(Outcome("activations", "Activations", "failed", reason="x"))
    cards = incident_cards(dataclasses.replace(report_of("faulty"), autopsy=failed))
    assert not [b for card in cards for b in card.blocks if isinstance(b, See)]


@pytest.mark.parametrize("render", [html, markdown])
def test_pointers_are_links_to_their_section(report_of, render, monkeypatch):
    monkeypatch.setattr("torchwatch.report.autopsy.page_names", tuple)
    outcome = Outcome("activations", "Activations <b>", "done", Seen((Remark("info", "a <script> b"),)))
    report = dataclasses.replace(report_of("faulty"), autopsy=autopsy(outcome))
    content = sections(report)
    if render is html:
        summary = {"score": 1, "band": "", "tone": "info", "headline": "", "facts": [], "footer": ""}
        page = html.render("t", summary, content, {})
        assert '<a href="#autopsy-activations">Activations &lt;b&gt;</a>' in page
        assert 'id="autopsy-activations"' in page
        assert "<script>" not in page
    else:
        assert "→ see **Activations" in markdown.render("t", content, {})


def test_the_words_name_every_examination_and_no_other():
    named = {name.replace(" ", "_") for name, _ in NOT_EXAMINED}
    assert named == set(all_examinations())
    assert set(page_names()) <= named


def test_checks_and_examinations_that_are_named_are_there():
    assert set(evidence._BY_CHECK) <= set(all_checks())
    named = {n for names in (*evidence._BY_CHECK.values(), *evidence._BY_CATEGORY.values()) for n in names}
    assert named <= set(all_examinations())


def test_cards_stay_as_they_are_without_an_autopsy(report_of):
    assert all(isinstance(c, Card) for c in incident_cards(report_of("faulty")))
    assert evidence.seen_in(report_of("faulty").diagnosis.incidents[0], None) == []
