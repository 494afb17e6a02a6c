"""Any table: CSV or JSON lines with a training loss and a step or an epoch in each row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from torchwatch.errors import NotARunFile
from torchwatch.importers.columns import Roles, count_numbers, given, guess
from torchwatch.importers.log import Log, Point, Points
from torchwatch.importers.source import Row, Source, number
from torchwatch.records import KINDS
from torchwatch.text import printable

NAME = "a table"
LATEST = 1e15
"""Steps, epochs and times beyond this are none."""

MOST_METRICS = 200
"""Further columns that are kept as metrics of the steps."""


def recognises(source: Source) -> bool:
    """Whether the file is CSV with a header, or JSON lines that are not ours."""
    first = source.first_object
    return bool(source.header) or (first is not None and first.get("kind") not in KINDS)


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log in a table.

    Raises:
        NotARunFile: no row has a training loss and a step or an epoch.
        ConfigError: ``columns`` names a column that is not there.
    """
    rows = source.csv_rows() if source.header else source.json_rows()
    return log_of(source, NAME if columns else _kind(source), rows, columns)


def log_of(
    source: Source,
    name: str,
    rows: Sequence[Row],
    columns: Mapping[str, str] | None,
    roles: Roles | None = None,
) -> Log:
    """The log in rows whose columns are given or have telling names; raises as :func:`read`."""
    counts = count_numbers(rows)
    known = given(columns, counts) if columns else roles or guess(counts)
    _require(source, known, list(counts), said=bool(columns))
    points = Points()
    number_of = _Numbering(known, rows)
    for index, row in enumerate(rows):
        add_row(points, row, known, number_of.step(index, row), number_of.epoch(row))
    if known.epoch_loss:
        _add_lost_epochs(points, rows, known, number_of)
    notes = points.notes()
    finished = points.sorted()
    notes += _resumes(finished)
    if known.components:
        others = ", ".join(printable(n, 40) for n in known.components[:5])
        notes.append(
            f"No column is the total loss: {printable(known.loss, 60)} was judged, not {others}; "
            "--columns loss=… chooses another."
        )
    return Log(name, number_of.unit, finished, notes)


def add_row(points: Points, row: Row, roles: Roles, step: int | None, epoch: int | None) -> None:
    """Take in one row at a step; without a step it says nothing."""
    if step is None:
        return
    time_s = number(row.get(roles.time)) if roles.time else None
    loss = number(row.get(roles.loss)) if roles.loss else None
    if loss is not None:
        points.train(step, loss, epoch, time_s)
    evals = {told: v for n, told in roles.evals.items() if (v := number(row.get(n))) is not None}
    if evals:
        points.evaluate(step, evals, epoch, time_s)
    rates = [v for n in roles.lr if (v := number(row.get(n))) is not None and math.isfinite(v)]
    norm = number(row.get(roles.grad_norm)) if roles.grad_norm else None
    rest = {n: v for n, v in row.items() if n not in roles.known and isinstance(v, float)}
    if rates or norm is not None or rest:
        point = points.at(step, epoch, time_s)
        point.lr = rates or point.lr
        point.grad_norm = norm if norm is not None else point.grad_norm
        for name, value in rest.items():
            if len(point.metrics) < MOST_METRICS:
                point.metrics.setdefault(name, value)


class _Numbering:
    """Step and epoch of a row: steps where there are any, else epochs, else rows are counted.

    Epochs are counted from 0, steps that are epochs or rows from 1.
    """

    def __init__(self, roles: Roles, rows: Sequence[Row]) -> None:
        self._roles = roles
        self.unit = "step" if roles.step else "epoch" if roles.epoch else "row"
        epochs = [v for r in rows if roles.epoch and (v := _whole_or_part(r.get(roles.epoch))) is not None]
        self._parts = roles.epoch_is_done or any(v != math.floor(v) for v in epochs)
        self._first = 0 if not epochs or min(epochs) < 1 else 1

    def step(self, index: int, row: Row) -> int | None:
        if self.unit == "row":
            return index + 1
        if self.unit == "epoch":
            epoch = self.epoch(row)
            return None if epoch is None else epoch + 1
        value = _whole_or_part(row.get(self._roles.step or ""))
        return None if value is None else round(value)

    def epoch(self, row: Row) -> int | None:
        value = _whole_or_part(row.get(self._roles.epoch)) if self._roles.epoch else None
        if value is None:
            return None
        if self._parts:  # epoch 1.0 is the end of the first
            return max(0, math.ceil(value - 1e-6) - 1)
        return int(value) - self._first


def _resumes(points: Sequence[Point]) -> list[str]:
    """Where the epoch goes back while the steps go on."""
    known = [p for p in points if p.epoch is not None]
    back = [q.step for p, q in itertools.pairwise(known) if (q.epoch or 0) < (p.epoch or 0)]
    return [f"The epoch goes back at step {step}: the training was resumed there." for step in back[:3]]


def _whole_or_part(value: object) -> float | None:
    return value if isinstance(value, float) and 0 <= value < LATEST else None


def _add_lost_epochs(points: Points, rows: Sequence[Row], roles: Roles, number_of: _Numbering) -> None:
    """An epoch's mean that is not finite although no logged step of it is: one of the others was not."""
    for index, row in enumerate(rows):
        mean, step = number(row.get(roles.epoch_loss or "")), number_of.step(index, row)
        if mean is None or math.isfinite(mean) or step is None:
            continue
        point = points.at(step, number_of.epoch(row))
        if point.loss is None:
            point.loss = mean


def _require(source: Source, roles: Roles, names: Sequence[str], *, said: bool) -> None:
    lacks = [
        w for w, there in (("loss", roles.loss), ("step", roles.step or roles.epoch or said)) if not there
    ]
    if not lacks:
        return
    shown = ", ".join(printable(n, 40) for n in names[:12]) + (" …" if len(names) > 12 else "")
    wanted = ",".join(f"{w}=COLUMN" for w in lacks)
    raise NotARunFile(
        f"{printable(source.path)} is not a run file, and as a log it has no column that is surely the "
        f"{' or the '.join(lacks)}: name it with --columns {wanted} (numbers in: {shown or 'no column'})"
    )


def _kind(source: Source) -> str:
    return "CSV" if source.header else "JSON lines"
