"""An issue: what one check keeps finding about one layer, or about the whole run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torchwatch.check import Check, Finding, Severity
from torchwatch.records import Alert

_MATERIAL = 1.25


@dataclass(eq=False, slots=True)
class Issue:
    """State of one issue. ``since_step`` is the earliest onset that any finding named.

    ``count`` is the number of looks that found it. ``peak`` is the latest finding at the worst severity,
    which is how the issue is told once the run is over; ``finding`` is the latest one.
    """

    check: Check
    layer: str | None
    finding: Finding
    severity: Severity
    since_step: int
    last_step: int
    worst_severity: Severity = Severity.INFO
    peak: Finding = field(init=False)
    worst: float | None = None
    count: int = 0
    open: bool = True
    clean_looks: int = 0
    incident: int = 0
    root: bool = False
    due: str | None = "opened"
    told_step: int = 0
    told_severity: Severity = Severity.INFO
    told_worst: float | None = None

    def __post_init__(self) -> None:
        self.peak = self.finding

    def found(self, finding: Finding, severity: Severity, step: int) -> bool:
        """Take in a finding; whether the issue's place in its incident may have changed."""
        before = (self.worst_severity, self.since_step)
        self.finding, self.severity, self.last_step = finding, severity, step
        self.since_step = min(self.since_step, onset(finding, step))
        self.worst = _worse(self.worst, finding.value)
        if severity >= self.worst_severity:
            self.worst_severity, self.peak = severity, finding
        self.count += 1
        self.clean_looks = 0
        if not self.open:
            self.open, self.due = True, "opened"
        return self.count == 1 or before != (self.worst_severity, self.since_step)

    def clean(self, looks: int) -> None:
        """Note looks that did not find it; enough of them in a row resolve it."""
        self.clean_looks += looks
        if self.clean_looks >= self.check.resolve_after:
            self.open, self.due = False, "resolved"

    def consider_update(self, step: int, interval: int) -> None:
        """Make an update due where one is worth a line.

        A worse severity is told at once; a milder one, a doubled or clearly grown value at most once per
        interval.
        """
        if self.due is not None or not self.open:
            return
        if self.severity > self.told_severity or (
            step - self.told_step >= interval
            and (self.severity != self.told_severity or _grew(self.told_worst, self.worst, _MATERIAL))
        ):
            self.due = "updated"

    def line(self, state: str, step: int, epoch: int | None, explanation: str | None) -> Alert:
        """The alert of a change, as things are now."""
        self.due = None
        self.told_step, self.told_severity, self.told_worst = step, self.severity, self.worst
        return self._alert(self.finding, self.severity, state, step, epoch, explanation)

    def summary(self, explanation: str | None) -> Alert:
        """The issue as it is told once the run is over: at its worst severity."""
        state = "opened" if self.open else "resolved"
        return self._alert(self.peak, self.worst_severity, state, self.last_step, None, explanation)

    def _alert(
        self,
        finding: Finding,
        severity: Severity,
        state: str,
        step: int,
        epoch: int | None,
        explanation: str | None,
    ) -> Alert:
        check = self.check
        return Alert(
            state=state,
            check=check.slug,
            severity=severity.word,
            category=check.category.value,
            title=finding.title,
            detail=finding.detail,
            step=step,
            epoch=epoch,
            layer=self.layer,
            metric=finding.metric,
            value=rounded(finding.value),
            threshold=rounded(finding.threshold),
            fix=check.fix if finding.fix is None else finding.fix,
            snippet=check.snippet if finding.snippet is None else finding.snippet,
            count=self.count,
            since_step=self.since_step,
            last_step=self.last_step,
            worst=rounded(self.worst),
            incident=self.incident,
            root=self.root,
            explanation=explanation if self.root else None,
        )


def onset(finding: Finding, step: int) -> int:
    """The finding's onset as a plain number, never in the future and never before the run."""
    return max(0, min(int(finding.since_step), step))


def rounded(value: float | None) -> float | None:
    """Six significant digits: what the last bits are depends on the machine, and replay must not."""
    return None if value is None else float(f"{float(value):.6g}")


def _worse(worst: float | None, value: float | None) -> float | None:
    """The larger magnitude; NaN counts as larger than any number."""
    if value is None:
        return worst
    value = float(value)
    return value if worst is None or _magnitude(value) > _magnitude(worst) else worst


def _magnitude(value: float) -> float:
    return math.inf if math.isnan(value) else abs(value)


def _grew(before: float | None, now: float | None, factor: float) -> bool:
    if before is None or now is None:
        return before is not now
    return _magnitude(now) > factor * _magnitude(before)
