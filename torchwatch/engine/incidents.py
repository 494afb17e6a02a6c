"""Issues that began together are one incident with one root cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Cause, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.engine.issues import Issue
    from torchwatch.records import Alert

CLOSE_STEPS = 20
"""Onsets within so many steps (or within one interval, if that is longer) belong together."""

_MOST_SYMPTOMS = 5

_CAUSES = {
    Cause.WIRING: "model, loss and optimizer are not connected as intended",
    Cause.INPUT: "the data that goes into the model",
    Cause.PARAMETER: "the weights themselves",
    Cause.ACTIVATION: "what the layers pass on to each other",
    Cause.GRADIENT: "the size of the gradients and of the updates made from them",
    Cause.LOSS: "the optimisation itself: learning rate, regularisation or data",
    Cause.OTHER: "what surrounds the training: data loading, memory or the machine",
}


@dataclass(frozen=True, slots=True)
class Incident:
    """Issues with one likely cause: ``root`` and what followed from it, earliest onset first."""

    id: int
    root: Alert
    symptoms: tuple[Alert, ...]
    explanation: str


class Group:
    """An incident while it grows."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.members: list[Issue] = []
        self.root: Issue | None = None

    def add(self, issue: Issue) -> None:
        """Let an issue belong to this incident."""
        issue.incident = self.id
        self.members.append(issue)

    def distance(self, since_step: int) -> int:
        """Steps from an onset to the nearest one here. Infos do not count beside something worse.

        Otherwise a trickle of infos would chain unrelated faults into one incident.
        """
        loud = [m for m in self.members if m.worst_severity > Severity.INFO or m is self.root]
        return min(abs(m.since_step - since_step) for m in loud or self.members)

    def choose_root(self) -> list[Issue]:
        """Find the root again; the issues whose root flag changed."""
        best = min(self.members, key=_rank)
        if best is self.root:
            return []
        changed = [best] if self.root is None else [best, self.root]
        self.root = best
        for issue in changed:
            issue.root = issue is best
        return changed

    def explanation(self) -> str:
        """What happened, in one paragraph."""
        assert self.root is not None
        return explain(self.root, [m for m in self.by_onset() if m is not self.root])

    def by_onset(self) -> list[Issue]:
        """Members, earliest onset first, then in the order of :func:`_rank`."""
        return sorted(self.members, key=lambda m: (m.since_step, *_rank(m)))

    def summary(self) -> Incident:
        """The incident as a value."""
        assert self.root is not None
        text = self.explanation()
        symptoms = tuple(m.summary(text) for m in self.by_onset() if m is not self.root)
        return Incident(self.id, self.root.summary(text), symptoms, text)


def _rank(issue: Issue) -> tuple[bool, int, int, int, str, str]:
    """The smallest is the root: the causal order, then onset, then severity; infos only among themselves."""
    return (
        issue.worst_severity == Severity.INFO,
        issue.check.cause,
        issue.since_step,
        -issue.worst_severity,
        issue.check.slug,
        issue.layer or "",
    )


def explain(root: Issue, symptoms: Sequence[Issue]) -> str:
    """One plain paragraph: since when, where, what, the likely cause, what to do, what followed."""
    finding = root.peak
    where = "" if root.layer is None else f" in layer {root.layer or 'of the model itself'}"
    sentences = [f"Since step {root.since_step}{where}: {_sentence(finding.title)}"]
    if finding.detail:
        sentences.append(_sentence(finding.detail))
    sentences.append(f"The likely cause is {_CAUSES[root.check.cause]}.")
    fix = root.check.fix if finding.fix is None else finding.fix
    if fix:
        sentences.append(f"What to do: {_sentence(fix)}")
    if symptoms:
        sentences.append(f"Seen with it: {_listed(symptoms)}.")
    return " ".join(sentences)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _listed(symptoms: Sequence[Issue]) -> str:
    first: dict[str, int] = {}
    for issue in symptoms:
        first.setdefault(issue.check.slug, issue.since_step)
    named = [f"{slug} (since step {step})" for slug, step in first.items()]
    more = len(named) - _MOST_SYMPTOMS
    return ", ".join(named[:_MOST_SYMPTOMS]) + (f" and {more} more" if more > 0 else "")
