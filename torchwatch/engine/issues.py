"""An issue: what one check keeps finding about one layer, or about the whole run."""

from __future__ import annotations

import math

from torchwatch.check import Check, Finding, Severity
from torchwatch.records import Alert

_MATERIAL = 1.25
_PATIENT_AFTER = 2
_MOST_PATIENCE = 12


class Issue:
    """State of one issue.

    Attributes:
        check: what finds it.
        layer: where; None: in the run as a whole.
        severity: of the latest finding; ``worst_severity`` that of the worst one.
        peak: the latest finding at the worst severity: how the issue is told once the run is over.
        since_step: the earliest onset that any finding named.
        last_step: the latest step at which it was found.
        worst: the value of largest magnitude.
        count: looks that found it.
        open: whether it is there now.
        incident: number of its incident, 0 before it has one.
        root: whether it is the root of that incident.
        context: what else changed when it began, in words; "" for nothing.
        due: what its next alert says, None where there is nothing to tell.
    """

    __slots__ = (
        "_clean_looks", "_epoch", "_finding", "_reopened", "_told_severity", "_told_step", "_told_worst",
        "check", "context", "count", "due", "incident", "last_step", "layer", "open", "peak", "root",
        "severity", "since_step", "worst", "worst_severity",
    )  # fmt: skip

    def __init__(
        self, check: Check, layer: str | None, finding: Finding, severity: Severity, step: int
    ) -> None:
        self.check = check
        self.layer = layer
        self.severity = self.worst_severity = severity
        self.peak = self._finding = finding
        self.since_step = onset(finding, step)
        self.last_step = step
        self.worst: float | None = None
        self.count = 0
        self.open = True
        self.incident = 0
        self.root = False
        self.context = ""
        self.due: str | None = "opened"
        self._epoch: int | None = None
        self._clean_looks = 0
        self._reopened = 0
        self._told_step = 0
        self._told_severity = severity
        self._told_worst: float | None = None

    def found(self, finding: Finding, severity: Severity, step: int, epoch: int | None) -> bool:
        """Take in a finding; whether the issue's place in its incident may have changed."""
        before = (self.worst_severity, self.since_step)
        self._finding, self.severity, self.last_step, self._epoch = finding, severity, step, epoch
        self.since_step = min(self.since_step, onset(finding, step))
        self.worst = _worse(self.worst, finding.value)
        if severity >= self.worst_severity:
            self.worst_severity, self.peak = severity, finding
        self.count += 1
        self._clean_looks = 0
        if not self.open:
            self.open, self.due = True, "opened"
            self._reopened += 1
        return self.count == 1 or before != (self.worst_severity, self.since_step)

    def clean(self, looks: int) -> None:
        """Note looks that did not find it; enough of them in a row resolve it.

        From the third reopening on twice as many are needed each time: an issue that comes and goes is one
        issue, not a stream of alerts.
        """
        self._clean_looks += looks
        patience = 2 ** min(max(0, self._reopened - _PATIENT_AFTER), _MOST_PATIENCE)
        if self._clean_looks >= self.check.resolve_after * patience:
            self.open, self.due = False, "resolved"

    def consider_update(self, step: int, interval: int) -> None:
        """Make an update due where one is worth a line.

        A worse severity is told at once; a milder one, a doubled or clearly grown value at most once per
        interval.
        """
        if self.due is not None:
            return
        milder = self.severity < self._told_severity
        waited = step - self._told_step >= interval
        if self.severity > self._told_severity or (
            waited and (milder or _grew(self._told_worst, self.worst))
        ):
            self.due = "updated"

    def line(self, step: int, epoch: int | None, explanation: str) -> Alert:
        """The alert that is due, as things are now."""
        state, self.due = self.due or "updated", None
        self._told_step, self._told_severity, self._told_worst = step, self.severity, self.worst
        return self._alert(self._finding, self.severity, state, step, epoch, explanation)

    def summary(self, explanation: str) -> Alert:
        """The issue as it is told once the run is over: at its worst severity, when it was last found."""
        state = "opened" if self.open else "resolved"
        return self._alert(self.peak, self.worst_severity, state, self.last_step, self._epoch, explanation)

    def _alert(
        self,
        finding: Finding,
        severity: Severity,
        state: str,
        step: int,
        epoch: int | None,
        explanation: str,
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


def _grew(before: float | None, now: float | None) -> bool:
    if before is None or now is None:
        return before is not now
    return _magnitude(now) > _MATERIAL * _magnitude(before)
