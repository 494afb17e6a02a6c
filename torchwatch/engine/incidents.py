"""Issues that began together are one incident with one root cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Severity
from torchwatch.engine.explanation import Alternatives, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.engine.issues import Issue
    from torchwatch.records import Alert

CLOSE_STEPS = 20
"""Onsets within so many steps (or within one interval, if that is longer) belong together."""

_SPREAD = ("input-nonfinite", "loss-nonfinite", "gradient-nonfinite", "parameter-nonfinite")
"""How NaN and infinity spread within one step: forward pass, backward pass, weights."""

Look = Callable[["Issue"], Alternatives]


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
        if best.check.slug in _SPREAD:
            best = min((m for m in self.members if m.check.slug in _SPREAD), key=_first_to_spread)
        if best is self.root:
            return []
        changed = [best] if self.root is None else [best, self.root]
        self.root = best
        for issue in changed:
            issue.root = issue is best
        return changed

    def symptoms(self) -> list[Issue]:
        """The other members, earliest onset first, then in the order of :func:`_rank`."""
        others = (m for m in self.members if m is not self.root)
        return sorted(others, key=lambda m: (m.since_step, *_rank(m)))


class Incidents:
    """All incidents of a run, numbered from 1 in the order in which they were noticed."""

    def __init__(self) -> None:
        self._groups: list[Group] = []

    def place(self, moved: Sequence[Issue], interval_steps: int) -> list[Issue]:
        """Give new issues their incident; the issues whose root flag changed.

        Args:
            moved: issues that are new, or whose onset or worst severity changed.
            interval_steps: length of an interval (steps).
        """
        touched = {}
        for issue in moved:
            if not issue.incident:
                self._nearest(issue, max(CLOSE_STEPS, interval_steps)).add(issue)
            touched[issue.incident] = self._groups[issue.incident - 1]
        return [issue for group in touched.values() for issue in group.choose_root()]

    def explanation(self, issue: Issue, look: Look) -> str:
        """What happened in an issue's incident, in one paragraph; ``look``: what else its cause may be."""
        group = self._groups[issue.incident - 1]
        assert group.root is not None
        return explain(group.root, group.symptoms(), self._before(group.root), look(group.root))

    def summaries(self, look: Look) -> list[Incident]:
        """The incidents as values."""
        result = []
        for group in self._groups:
            assert group.root is not None
            text = self.explanation(group.root, look)
            symptoms = tuple(s.summary(text) for s in group.symptoms())
            result.append(Incident(group.id, group.root.summary(text), symptoms, text))
        return result

    def _nearest(self, issue: Issue, near: int) -> Group:
        """The incident with the nearest onset; a new one where none is near enough."""
        distances = ((g.distance(issue.since_step), g.id) for g in self._groups)
        distance, number = min(distances, default=(near + 1, 0))
        if distance <= near:
            return self._groups[number - 1]
        self._groups.append(Group(len(self._groups) + 1))
        return self._groups[-1]

    def _before(self, root: Issue) -> list[Issue]:
        """Roots that began earlier, stand earlier in the causal order, and were there at its onset."""
        roots = (g.root for g in self._groups if g.root is not None)
        return [
            other
            for other in roots
            if other.worst_severity > Severity.INFO
            and other.check.cause < root.check.cause
            and other.since_step < root.since_step <= other.last_step
        ]


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


def _first_to_spread(issue: Issue) -> tuple[bool, int, int, str]:
    """The smallest is where non-finite values came in: one step of them is in everything that follows."""
    info = issue.worst_severity == Severity.INFO
    return info, issue.since_step, _SPREAD.index(issue.check.slug), issue.layer or ""
