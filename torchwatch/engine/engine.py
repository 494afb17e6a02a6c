"""One engine, live and in replay: it sees records only, never the clock, so both give the same alerts."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.check import Cause, Check, Finding, NotReady, On, Scope, Selection, Severity, select_known
from torchwatch.engine.context import learning_rate_rise
from torchwatch.engine.explanation import Alternatives
from torchwatch.engine.incidents import Incident, Incidents
from torchwatch.engine.issues import Issue
from torchwatch.engine.score import health_score
from torchwatch.history import History
from torchwatch.records import (
    Alert,
    End,
    Epoch,
    Eval,
    Interval,
    Layout,
    Log,
    Profile,
    Record,
    RunHeader,
    Step,
    Steps,
    System,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torchwatch.run import Run

_EVENTS: Mapping[type[Record], On] = MappingProxyType(
    {
        Layout: On.LAYOUT,
        Step: On.STEP,
        Steps: On.STEP,
        Interval: On.INTERVAL,
        Eval: On.EVAL,
        Epoch: On.EPOCH,
        System: On.SYSTEM,
        Profile: On.PROFILE,
        Log: On.LOG,
    }
)
_INTERVAL_STEPS = 200


class Engine:
    """Runs the selected checks over records as they come and turns what they find into alerts.

    Attributes:
        history: what the checks see.
        failed: check → why it was switched off: its ``find`` raised, which never brings the run down.
        skipped: names in the header's limits and ignores that this version does not know.
    """

    def __init__(self, selection: Selection) -> None:
        self.history = History()
        self.failed: dict[str, str] = {}
        self.skipped: tuple[str, ...] = ()
        self._selection = selection
        self._by_event = {
            on: [c for c in selection.checks if on in c.when and c.scope is Scope.RANK] for on in On
        }
        self._issues: dict[str, dict[str | None, Issue]] = {}
        self._incidents = Incidents()
        self._moved: list[Issue] = []
        self._due: list[Issue] = []
        self._started = False
        self._complete: set[str] = set()
        self._looked: set[str] = set()
        self._not_ready: dict[str, str] = {}
        self._finished = False

    @classmethod
    def for_header(cls, header: RunHeader) -> Engine:
        """An engine with the limits and ignores that were in force when the run was written."""
        selection, skipped = select_known(header.limits, header.ignore)
        engine = cls(selection)
        engine.skipped = skipped
        return engine

    def feed(self, record: Record) -> list[Alert]:
        """Take in one record; the alerts that belong right after its line.

        An ``end`` record counts as :meth:`finish`; alerts, notes, black boxes and unknown kinds are ignored.
        """
        if isinstance(record, End):
            return self.finish()
        if isinstance(record, RunHeader):
            self._start(record)
            return []
        self.history.add(record)
        on = _EVENTS.get(type(record))
        if on is None:
            return []
        return self._look_at(on, looks=len(record.step) if isinstance(record, Steps) else 1)

    def finish(self) -> list[Alert]:
        """The pass at the end of the run, before its ``end`` record is written; nothing the second time."""
        if self._finished:
            return []
        self._finished = True
        return self._look_at(On.END, looks=1)

    def compare(self, run: Run) -> list[Alert]:
        """The pass over the files of several ranks, after :meth:`finish`; never live.

        Args:
            run: rank 0's run, joined with the others; this engine was fed rank 0's records.
        """
        across = [c for c in self._selection.checks if c.scope is Scope.RUN]
        return self._look(across, run, looks=1)

    @property
    def issues(self) -> list[Alert]:
        """Every issue as it stands, at its worst severity: worst first, then by onset."""
        found = sorted(self._all_issues(), key=lambda i: (-i.worst_severity, i.since_step))
        return [i.summary(self._incidents.explanation(i, self._alternatives)) for i in found]

    @property
    def incidents(self) -> list[Incident]:
        """Issues grouped under their root, in the order in which the incidents were noticed."""
        return self._incidents.summaries(self._alternatives)

    def health_score(self) -> int:
        """100 to 0; each check counts once at its worst severity, resolved or not."""
        return health_score(
            max(i.worst_severity for i in issues.values()) for issues in self._issues.values() if issues
        )

    def not_run(self) -> dict[str, str]:
        """Checks that never came to a verdict, and why: not run is not passed."""
        reasons = dict.fromkeys(self._selection.ignored, "ignored")
        for check in self._selection.checks:
            reason = self._why_not_run(check)
            if reason is not None:
                reasons[check.slug] = reason
        return dict(sorted(reasons.items()))

    def _why_not_run(self, check: Check) -> str | None:
        if check.slug in self.failed:
            return f"switched off: {self.failed[check.slug]}"
        missing = [name for name in check.reads if not self.history.seen(name)]
        if missing:
            return "no " + ", ".join(f"`{name}`" for name in missing)
        if check.slug in self._looked:
            return None
        if check.slug in self._not_ready:
            return f"not ready: {self._not_ready[check.slug]}"
        if check.scope is Scope.RUN:
            return "needs the files of several ranks, read together"
        return "no " + " or ".join(sorted(f"`{on.value}`" for on in check.when)) + " record"

    def _start(self, header: RunHeader) -> None:
        """Take in the header; one that comes again changes nothing."""
        if not self._started:
            self._started = True
            self.history.add(header)

    def _look_at(self, on: On, looks: int) -> list[Alert]:
        return self._look(self._by_event[on], self.history, looks)

    def _look(self, checks: Iterable[Check], seen: History | Run, looks: int) -> list[Alert]:
        with np.errstate(all="ignore"):  # once for all of them: per check it would be a fifth of the pass
            for check in checks:
                findings = self._find(check, seen)
                if findings is not None:
                    self._judge(check, findings, looks)
        if self._moved:
            self._regroup()
        return self._lines()

    def _find(self, check: Check, seen: Any) -> list[Finding] | None:
        """What the check says of what it sees; None where it cannot tell or is off."""
        slug = check.slug
        if slug in self.failed or not self._has_all(check):
            return None
        try:
            found = check.find(seen, check.limits)
        except Exception as error:  # noqa: BLE001 - a broken check must not end a training run
            self.failed[slug] = f"{type(error).__name__}: {error}"
            return None
        if isinstance(found, NotReady):
            self._not_ready[slug] = found.reason
            return None
        self._looked.add(slug)
        return found

    def _has_all(self, check: Check) -> bool:
        if check.slug not in self._complete and all(self.history.seen(n) for n in check.reads):
            self._complete.add(check.slug)
        return check.slug in self._complete

    def _judge(self, check: Check, findings: list[Finding], looks: int) -> None:
        """Compare what is wrong now with what was wrong before."""
        issues = self._issues.setdefault(check.slug, {})
        if not findings and not issues:
            return
        history, interval = self.history, self._interval_steps()
        worst = _one_per_layer(check, findings)
        for layer, (finding, severity) in worst.items():
            issue = issues.get(layer)
            if issue is None:
                issue = issues[layer] = Issue(check, layer, finding, severity, history.step)
                issue.context = learning_rate_rise(history, check.cause, issue.since_step)
            if issue.found(finding, severity, history.step, history.epoch):
                self._moved.append(issue)
            issue.consider_update(history.step, interval)
        for layer, issue in issues.items():
            if issue.open and layer not in worst:
                issue.clean(looks)
        self._due += [issue for issue in issues.values() if issue.due is not None]

    def _regroup(self) -> None:
        """Give new issues their incident; an issue whose root flag changed has something to tell."""
        moved, self._moved = self._moved, []
        for issue in self._incidents.place(moved, self._interval_steps()):
            if issue.due is None:
                issue.due = "updated" if issue.open else "resolved"
                self._due.append(issue)

    def _alternatives(self, root: Issue) -> Alternatives:
        """Where the cause of an issue could also have been: what stands before it in the causal order."""
        quiet: list[Cause] = []
        unknown: list[Cause] = []
        loud = {i.check.cause for i in self._all_issues() if i.worst_severity > Severity.INFO}
        for cause in Cause:
            if cause >= root.check.cause or root.check.cause is Cause.OTHER or cause in loud:
                continue
            looked = any(c.cause is cause and c.slug in self._looked for c in self._selection.checks)
            (quiet if looked else unknown).append(cause)
        return Alternatives(tuple(quiet), tuple(unknown))

    def _interval_steps(self) -> int:
        """Length of an interval: the longer of the last two, since an epoch's last one is a remainder."""
        recent = [i.length for i in self.history.intervals[-2:]]
        planned = self.history.header.config.get("interval_steps", _INTERVAL_STEPS)
        return max(recent, default=planned if isinstance(planned, int) else _INTERVAL_STEPS)

    def _lines(self) -> list[Alert]:
        """The alerts that are due, roots first; within them in the order in which checks look."""
        if not self._due:
            return []
        due, self._due = sorted(self._due, key=lambda i: (not i.root, i.check.slug)), []
        step, epoch = self.history.step, self.history.epoch
        return [i.line(step, epoch, self._incidents.explanation(i, self._alternatives)) for i in due]

    def _all_issues(self) -> Iterable[Issue]:
        return (issue for slug in sorted(self._issues) for issue in self._issues[slug].values())


def _one_per_layer(check: Check, findings: list[Finding]) -> dict[str | None, tuple[Finding, Severity]]:
    """The worst finding of each layer, with its severity."""
    worst: dict[str | None, tuple[Finding, Severity]] = {}
    for finding in findings:
        severity = check.severity if finding.severity is None else finding.severity
        if finding.layer not in worst or severity > worst[finding.layer][1]:
            worst[finding.layer] = (finding, severity)
    return worst
