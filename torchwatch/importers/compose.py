"""From a log to records, as a watched run would have written them, as far as the log goes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchwatch.importers.log import Log, Point
from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.records import End, Epoch, Eval, Interval, Note, Record, RunHeader, Step

INTERVAL_STEPS = 200
"""Steps of an interval, as in a watched run."""

_LEAST_INTERVALS = 20
_EPOCH_LIMITS = {"no-learning": {"steps": 10, "warm_up": 0}}
"""Limits that count steps, for a log whose steps are epochs."""


def header_of(log: Log, path: Path, content: bytes) -> RunHeader:
    """The header of a log: what it is, and that it was imported."""
    declared = {} if log.planned_steps is None else {"planned_steps": log.planned_steps}
    return RunHeader(
        run_id=hashlib.sha256(content).hexdigest()[:12],
        name=path.name,
        parameters=log.parameters,
        hyperparameters=log.hyperparameters,
        config={
            "imported": {"format": log.format, "unit": log.unit},
            "interval_steps": _interval_steps(log),
            "declare": declared,
        },
        limits={} if log.unit == "step" else _EPOCH_LIMITS,
    )


def records_of(log: Log) -> Iterator[Record]:
    """Everything after the header.

    A point with a loss becomes a ``step``, one with metrics of an evaluation an ``eval``. Intervals close at
    the end of an epoch, or after 200 steps, or a twentieth of a log that is shorter than 20 such. A row
    stands for the steps since the row before, so an interval's ``first_step`` follows the last of the one
    before, while ``steps`` counts rows: the scatter of the loss is that of rows.
    """
    for message in (_about(log), *log.notes):
        yield Note(topic="import", message=message)
    composer = _Composer(_interval_steps(log), _first_step(log))
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

    def __init__(self, interval_steps: int, first_step: int) -> None:
        self._length = interval_steps
        self._builder = IntervalBuilder()
        self._first_step = first_step
        self._rate: list[float] | None = None
        self._epoch_evals: dict[str, float | None] = {}
        self._steps = self._in_epoch = self._epochs = self._last = 0
        self._time_s = 0.0

    def take(self, point: Point, following: Point | None) -> Iterator[Record]:
        """The records of one point; the one after it tells whether its epoch ends here."""
        self._time_s = max(self._time_s, point.time_s or 0.0)
        self._rate = point.lr or self._rate
        ends_epoch = point.epoch is not None and (following is None or following.epoch != point.epoch)
        if point.loss is not None:
            self._steps += 1
            self._in_epoch += 1
            self._last = point.step
            step = self._step(point)
            self._builder.add(step)
            yield step
        full = self._last - self._first_step + 1 >= self._length
        if not self._builder.empty and (full or ends_epoch or following is None):
            closed_by = "epoch" if ends_epoch else "steps" if full else "end"
            yield self._interval(closed_by)
        if point.evals:
            self._epoch_evals |= point.evals
            yield Eval(point.step, point.epoch, self._time_s, _rounded(point.evals))
        if ends_epoch and point.epoch is not None and self._in_epoch:
            yield self._epoch(point.epoch)

    def totals(self) -> dict[str, Any]:
        """Fields of the end record."""
        return {"step": self._last, "steps": self._steps, "epochs": self._epochs, "time_s": self._time_s}

    def _step(self, point: Point) -> Step:
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
        closed = self._builder.close(closed_by, self._time_s)
        closed = dataclasses.replace(closed, first_step=min(self._first_step, closed.first_step))
        self._first_step = closed.last_step + 1
        return dataclasses.replace(closed, watch_share=None)

    def _epoch(self, epoch: int) -> Epoch:
        evals, self._epoch_evals = self._epoch_evals, {}
        self._in_epoch = 0
        self._epochs += 1
        return self._builder.close_epoch(epoch, self._last, self._time_s, evals)


def _interval_steps(log: Log) -> int:
    """Steps of an interval: 200, or fewer so that a short log still has twenty; 1 where steps are epochs."""
    if log.unit == "epoch":
        return 1
    steps = [p.step for p in log.points if p.loss is not None]
    span = steps[-1] - _first_step(log) + 1 if steps else 0
    return max(1, min(INTERVAL_STEPS, span // _LEAST_INTERVALS))


def _first_step(log: Log) -> int:
    """Where the log begins: at 1, unless its first row lies further from there than rows from each other."""
    steps = [p.step for p in log.points if p.loss is not None]
    if len(steps) < 2:
        return min([1, *steps])
    gap = steps[1] - steps[0]
    return min(1, steps[0]) if steps[0] <= 2 * gap else steps[0] - gap + 1


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {name: tidy(value) for name, value in values.items()}
