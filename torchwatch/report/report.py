"""The report as a value: everything that any of its forms shows, from a run file alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchwatch.diagnosis import Diagnosis, diagnose
from torchwatch.importers import open_run
from torchwatch.report.collect import Collected, Collector
from torchwatch.report.marks import Mark, Span
from torchwatch.report.severity import rank, worst_of
from torchwatch.report.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torchwatch.records import Alert, Record
    from torchwatch.report.trace import Trace
    from torchwatch.results import Autopsy


@dataclass(frozen=True, slots=True)
class Report:
    """What a report shows.

    Attributes:
        path: the run file.
        diagnosis: issues, incidents, health score and what was not run.
        found: header, layout, end, last values and plot data, from one pass over the file.
        verdict: the first lines: how the run ended and how healthy it was.
        marks: where incidents began.
        spans: from when to when each issue lasted.
        layer_severity: worst severity of the issues of each layer that has any.
        autopsy: what the examinations of model and data found; None where there was no model.
    """

    path: Path
    diagnosis: Diagnosis
    found: Collected
    verdict: Verdict
    marks: tuple[Mark, ...]
    spans: tuple[Span, ...]
    layer_severity: Mapping[str, str]
    autopsy: Autopsy | None = None

    @property
    def trace(self) -> Trace:
        """What the plots draw."""
        return self.found.trace

    @property
    def layer_names(self) -> tuple[str, ...]:
        """All layers that the run's layouts named, in the order of the forward pass."""
        return self.found.layer_names

    @property
    def title(self) -> str:
        """The run's name, else that of its model, else of its file."""
        header = self.found.header
        return header.name or header.model or self.path.name


def build_report(
    path: str | Path,
    on_record: Callable[[Record], object] = lambda _: None,
    columns: Mapping[str, str] | None = None,
) -> Report:
    """Diagnose a run file and collect all that its report shows: one pass, in bounded memory.

    Args:
        path: a run file, or another tool's log; gzipped or not.
        on_record: called with every record after the header, to show how far it got.
        columns: what is in which column of a log, as in :func:`torchwatch.diagnose`.

    Raises:
        NotARunFile: the file is missing, empty or not a run.
        NewerSchema: it was written with a newer schema.
        ConfigError: ``columns`` names a column that is not there.
        MissingExtra: the log is in a format that needs a package which is not installed.
    """
    path = Path(path)
    collector = Collector()
    with open_run(path, columns) as reader:
        collector.add(next(reader))

    def take(record: Record) -> None:
        collector.add(record)
        on_record(record)

    diagnosis = diagnose(path, on_record=take, columns=columns)
    found = collector.finish()
    return Report(
        path=path,
        diagnosis=diagnosis,
        found=found,
        verdict=judge(found, diagnosis),
        marks=_marks(diagnosis),
        spans=_spans(diagnosis.issues),
        layer_severity=_layer_severity(diagnosis.issues),
    )


def _marks(diagnosis: Diagnosis) -> tuple[Mark, ...]:
    return tuple(Mark(i.id, i.root.since_step, worst_of(i), i.root.category) for i in diagnosis.incidents)


def _spans(issues: tuple[Alert, ...]) -> tuple[Span, ...]:
    """An issue's whole life; one that resolved and reopened is one span."""
    return tuple(
        Span(i.check, i.severity, i.since_step, i.last_step if i.state == "resolved" else None)
        for i in issues
    )


def _layer_severity(issues: tuple[Alert, ...]) -> dict[str, str]:
    worst: dict[str, str] = {}
    for issue in issues:
        if issue.layer is not None and rank(issue.severity) >= rank(worst.get(issue.layer, "info")):
            worst[issue.layer] = issue.severity
    return worst
