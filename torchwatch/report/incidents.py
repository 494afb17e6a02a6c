"""Incidents as cards: root cause, explanation, evidence, what to do, and the symptoms folded under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report.document import Block, Callout, Card, Code, Fold, Table, Text
from torchwatch.report.evidence import seen_in
from torchwatch.report.severity import worst_first, worst_of
from torchwatch.report.verdict import counted
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.engine import Incident
    from torchwatch.records import Alert
    from torchwatch.report.report import Report
    from torchwatch.results import Autopsy

_MOST_SYMPTOMS = 50


def incident_cards(report: Report) -> list[Card]:
    """One card per incident, worst first, then earliest; numbers are those of the alerts and plots."""
    return [_card(incident, report.autopsy) for incident in worst_first(report.diagnosis.incidents)]


def _card(incident: Incident, autopsy: Autopsy | None) -> Card:
    root = incident.root
    blocks: list[Block] = [Text(_story(incident))]
    if root.fix:
        blocks.append(Callout("info", "What to do:", root.fix))
    if root.snippet:
        blocks.append(Code(root.snippet, "python"))
    blocks += seen_in(incident, autopsy)
    if incident.symptoms:
        blocks.append(_symptoms(incident.symptoms))
    return Card(worst_of(incident), f"{incident.id}. {root.title}", _facts(root), blocks)


def _story(incident: Incident) -> str:
    """The explanation without the advice, which has a box of its own."""
    root = incident.root
    advice = f" What to do: {root.fix.strip()}"
    story = incident.explanation.replace(f"{advice}.", "").replace(advice, "")
    return story if root.detail.strip().rstrip(".") in story else f"{story} {root.detail}"


def _facts(root: Alert) -> list[tuple[str, str]]:
    facts = [("root cause", f"{root.check} ({root.severity})")]
    if root.layer is not None:
        facts.append(("layer", root.layer or "(the model itself)"))
    facts.append(("since step", f"{root.since_step:,}"))
    facts.append(
        ("resolved after step", f"{root.last_step:,}") if root.state == "resolved" else ("until", "the end")
    )
    if root.value is not None:
        facts.append((root.metric or "value", number(root.value)))
    if root.threshold is not None:
        facts.append(("limit", number(root.threshold)))
    if root.worst is not None and root.worst != root.value:
        facts.append(("worst", number(root.worst)))
    facts.append(("found", counted(root.count, "time")))
    return facts


def _symptoms(symptoms: tuple[Alert, ...]) -> Fold:
    rows = [
        [s.severity, s.check, s.layer or "–", str(s.since_step), s.title] for s in symptoms[:_MOST_SYMPTOMS]
    ]
    table = Table(
        ["severity", "check", "layer", "since step", "what"],
        rows,
        numeric=frozenset({3}),
        names=frozenset({1, 2}),
        severity=0,
    )
    more = len(symptoms) - len(rows)
    tail: list[Block] = [Text(f"And {more} more, all in report.json.", quiet=True)] if more else []
    return Fold(f"{counted(len(symptoms), 'symptom').capitalize()} seen with it", [table, *tail])
