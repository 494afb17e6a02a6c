"""From a log to records, as a watched run would have written them, as far as the log goes."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchwatch.importers.log import Log, Point
from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.records import End, Epoch, Eval, Interval, Note, Record, RunHeader, Step

INTERVAL_STEPS = 200
"""Steps of an interval, as in a watched run."""

LEAST_ROWS = 10
"""Rows of an interval where the log is long enough: a mean of fewer says little."""

_LEAST_INTERVALS = 10
_EPOCH_LIMITS = {"no-learning": {"steps": 10, "warm_up": 0}}
"""Limits that count steps, for a log whose steps are epochs."""


def header_of(log: Log, path: Path, content: bytes) -> RunHeader:
    """The header of a log: what it is, and that it was imported."""
    planned = {} if log.planned_steps is None else {"planned_steps": log.planned_steps}
    return RunHeader(
        run_id=hashlib.sha256(content).hexdigest()[:12],
        name=path.name,
        parameters=log.parameters,
        hyperparameters=log.hyperparameters,
        config={
            "imported": {"format": log.format, "unit": log.unit},
            "interval_steps": _interval_steps(log),
            "declare": planned | log.declared,
        },
        limits={} if log.unit == "step" else _EPOCH_LIMITS,
    )


def records_of(log: Log) -> Iterator[Record]:
    """Everything after the header.

    A point with a loss becomes a ``step``, one with metrics of an evaluation an ``eval``. Intervals close at
    the end of an epoch, after 200 steps or ten rows if that is more, or after a tenth of a short log. A
    row stands for the steps since the row before, so an interval's ``first_step`` follows the last of the one
    before, while ``steps`` counts rows: the scatter of the loss is that of rows.
    """
    for message in (_about(log), *log.notes):
        yield Note(topic="import", message=message)
    composer = _Composer(log)
    for index, point in enumerate(log.points):
        following = log.points[index + 1] if index + 1 < len(log.points) else None
        yield from composer.take(point, following)
    status = "finished" if log.finished else "imported"
    yield End(status=status, **composer.totals())


def _about(log: Log) -> str:
    counted = {"epoch": "Its steps are epochs, counted from 1.", "row": "Its steps are rows, counted from 1."}
    return f"Imported from a log ({log.format}). {counted.get(log.unit, '')}".strip()


class _Composer:
    """Puts records in the order of a run file."""

    def __init__(self, log: Log) -> None:
        self._closings = _closings(log.points, _interval_steps(log))
        self._builder = IntervalBuilder()
        self._first_step = _first_step(log)
        self._rate: list[float] | None = None
        self._epoch_evals: dict[str, float | None] = {}
        self._steps = self._in_epoch = self._epochs = self._last = 0
        self._time_s = 0.0

    def take(self, point: Point, following: Point | None) -> Iterator[Record]:
        """The records of one point; the one after it tells whether its epoch ends here."""
        self._time_s = max(self._time_s, point.time_s or 0.0)
        self._rate = point.lr or self._rate
        if point.loss is not None:
            step = self._step(point)
            self._builder.add(step)
            yield step
        if point.step in self._closings and not self._builder.empty:
            yield self._interval(self._closings[point.step])
        if point.evals:
            self._epoch_evals |= point.evals
            yield Eval(point.step, point.epoch, self._time_s, _rounded(point.evals))
        ends_epoch = following is None or following.epoch != point.epoch
        if ends_epoch and point.epoch is not None and self._in_epoch:
            yield self._epoch(point.epoch)

    def totals(self) -> dict[str, Any]:
        """Fields of the end record."""
        return {"step": self._last, "steps": self._steps, "epochs": self._epochs, "time_s": self._time_s}

    def _step(self, point: Point) -> Step:
        self._steps += 1
        self._in_epoch += 1
        self._last = point.step
        return Step(
            step=point.step,
            epoch=point.epoch,
            time_s=self._time_s,
            loss=tidy(point.loss),
            loss_source="log",
            lr=self._rate,
            grad_norm_preclip=tidy(point.grad_norm),
            skipped=point.skipped,
            metrics=_rounded(point.metrics) or None,
        )

    def _interval(self, closed_by: str) -> Interval:
        """The interval of the rows since the last one; what one row scatters by is not known."""
        closed = self._builder.close(closed_by, self._time_s)
        first_step = min(self._first_step, closed.first_step)
        self._first_step = closed.last_step + 1
        std = closed.loss_std if closed.steps > 1 else None
        return dataclasses.replace(closed, first_step=first_step, loss_std=std)

    def _epoch(self, epoch: int) -> Epoch:
        evals, self._epoch_evals = self._epoch_evals, {}
        self._in_epoch = 0
        self._epochs += 1
        return self._builder.close_epoch(epoch, self._last, self._time_s, evals)


def _closings(points: list[Point], length: int) -> dict[int, str]:
    """The steps at which an interval closes, and by what.

    What is left of an epoch goes to the interval before where it is less than half as many rows: one odd row
    alone would be a level of its own.
    """
    closings: dict[int, str] = {}
    trained = [p for p in points if p.loss is not None]
    for _, group in itertools.groupby(trained, key=lambda p: p.epoch):
        epoch = list(group)
        ends = _ends([p.step for p in epoch], length)
        closings |= dict.fromkeys((epoch[e].step for e in ends), "steps")
        closings[epoch[-1].step] = "epoch" if epoch[-1].epoch is not None else "end"
    return closings


def _ends(steps: list[int], length: int) -> list[int]:
    """Places of the last rows of the intervals within an epoch, its own last row always among them."""
    ends: list[int] = []
    begin = steps[0]
    for place, following in enumerate(steps[1:]):
        if following - begin >= length:
            ends.append(place)
            begin = following
    ends.append(len(steps) - 1)
    if len(ends) > 1:
        before = ends[-2] - (ends[-3] if len(ends) > 2 else -1)
        if 2 * (ends[-1] - ends[-2]) < before:
            del ends[-2]
    return ends


def _interval_steps(log: Log) -> int:
    """Steps of an interval: 200 or ten rows, but so few that a short log still has ten intervals."""
    steps = [p.step for p in log.points if p.loss is not None]
    if log.unit == "epoch" or len(steps) < 2:
        return 1
    span = steps[-1] - _first_step(log) + 1
    rows = math.ceil(LEAST_ROWS * span / len(steps))
    return max(1, min(max(INTERVAL_STEPS, rows), span // _LEAST_INTERVALS))


def _first_step(log: Log) -> int:
    """Where the log begins: at 1, unless its first row lies further from there than rows from each other."""
    steps = [p.step for p in log.points if p.loss is not None]
    if len(steps) < 2:
        return min([1, *steps])
    gap = steps[1] - steps[0]
    return min(1, steps[0]) if steps[0] <= 2 * gap else steps[0] - gap + 1


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {name: tidy(value) for name, value in values.items()}
