"""Reads a run's records once, in bounded memory, into what the report draws and lists.

Step scalars are kept in full until the end (16 bytes a value: 130 MB for eight scalars of a million
steps); layer columns are thinned while they arrive.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from torchwatch.records import (
    End,
    Epoch,
    Eval,
    Interval,
    Layout,
    Log,
    Note,
    Numbers,
    Record,
    RunHeader,
    Step,
    Steps,
    System,
    as_list,
)
from torchwatch.report.layer_columns import LayerColumns
from torchwatch.report.trace import Floats, Points, Trace, curve, moving_median

_SCALARS = ("loss", "grad_norm", "grad_norm_preclip", "update_ratio")
_INTERVALS = (
    "samples_per_s",
    "steps_per_s",
    "wait_share",
    "rss_bytes",
    "cuda_allocated_bytes",
    "cuda_reserved_bytes",
)
_SYSTEMS = ("rss_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes")
_MOST_POINTS = 20_000
_MOST_METRICS = 64
_KEPT_LINES = 200


class _Values:
    """A growing list of (step, value)."""

    def __init__(self) -> None:
        self.at, self.values = array("d"), array("d")

    def add(self, at: float, value: float | None) -> None:
        if value is not None:
            self.at.append(at)
            self.values.append(value)

    def add_all(self, at: list[int], values: list[float | None]) -> None:
        if len(at) == len(values) and None not in values:
            self.at.extend(at)
            self.values.extend(values)  # type: ignore[arg-type]  # None was ruled out
            return
        for a, v in zip(at, values, strict=False):
            self.add(a, v)

    def points(self) -> Points:
        """All of them, or every n-th when there are more than a plot can show."""
        stride = -(-len(self.at) // _MOST_POINTS) or 1
        return Points(np.array(self.at)[::stride], np.array(self.values)[::stride])

    def arrays(self) -> tuple[npt.NDArray[np.int64], Floats]:
        return np.array(self.at).astype(np.int64), np.array(self.values)


@dataclass
class Collected:
    """What one pass over the records leaves behind; ``logs`` and ``notes`` are the last 200 of each."""

    header: RunHeader = field(default_factory=RunHeader)
    layout: Layout | None = None
    end: End | None = None
    layer_names: tuple[str, ...] = ()
    trace: Trace = field(default_factory=Trace)
    logs: deque[Log] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    steps: int = 0
    last_step: int = 0
    time_s: float = 0.0
    dropped: int = 0


class Collector:
    """Takes in records one by one and keeps what a report shows of them."""

    def __init__(self) -> None:
        self.out = Collected()
        self._scalars: dict[str, _Values] = {}
        self._evals: dict[str, _Values] = {}
        self._intervals: dict[str, _Values] = {}
        self._systems: dict[str, _Values] = {}
        self._layers = LayerColumns()

    def add(self, record: Record) -> None:
        """Take in one record; kinds that the report does not show are passed over."""
        out = self.out
        match record:
            case Step():
                self._step(record)
            case Steps():
                self._fast_steps(record)
            case Interval():
                out.dropped += record.dropped
                self._fields(self._intervals, record.last_step, record, _INTERVALS)
            case System():
                out.time_s = max(out.time_s, record.time_s)
                self._fields(self._systems, record.time_s, record, _SYSTEMS)
            case Eval():
                self._named(self._evals, record.step, record.metrics)
            case Epoch():
                self._epoch(record)
            case Layout():
                out.layout = record
                self._layers.use(record)
            case _:
                self._rare(record)

    def _rare(self, record: Record) -> None:
        out = self.out
        match record:
            case RunHeader():
                out.header = record
            case End():
                out.end = record
                out.time_s = max(out.time_s, record.time_s)
            case Log():
                out.logs.append(record)
            case Note():
                out.notes.append(record)

    def _step(self, record: Step) -> None:
        self._moved(1, record.step, record.time_s)
        for name in _SCALARS:
            self._scalar(name).add(record.step, getattr(record, name))
        self._scalar("lr").add(record.step, _highest(record.lr))
        for name, value in (record.metrics or {}).items():
            self._metric(name, [record.step], [value])
        self._layers.take(record.step, record)

    def _fast_steps(self, record: Steps) -> None:
        if not record.step:
            return
        self._moved(len(record.step), record.step[-1], _end(record.time_s))
        for name in _SCALARS:
            self._scalar(name).add_all(record.step, as_list(getattr(record, name)) or [])
        self._scalar("lr").add_all(record.step, [_highest(lr) for lr in record.lr or []])
        for name, values in (record.metrics or {}).items():
            self._metric(name, record.step, as_list(values))
        for index, columns in (record.columns or {}).items():
            self._layers.take(record.step[int(index)], columns)

    def _moved(self, steps: int, last: int, time_s: float | None) -> None:
        self.out.steps += steps
        self.out.last_step = max(self.out.last_step, last)
        self.out.time_s = max(self.out.time_s, time_s or 0.0)

    def _scalar(self, name: str) -> _Values:
        return self._scalars.setdefault(name, _Values())

    def _metric(self, name: str, steps: list[int], values: list[float | None]) -> None:
        key = f"metrics.{name}"
        if key in self._scalars or len(self._scalars) < _MOST_METRICS:
            self._scalar(key).add_all(steps, values)

    def _epoch(self, record: Epoch) -> None:
        """The metrics given to an epoch that no evaluation record carries."""
        given = {k: v for k, v in record.metrics.items() if not _last_is(self._evals.get(k), record.step)}
        self._named(self._evals, record.step, given)

    def _named(self, into: dict[str, _Values], step: int, metrics: dict[str, float | None]) -> None:
        for name, value in metrics.items():
            if name in into or len(into) < _MOST_METRICS:
                into.setdefault(name, _Values()).add(step, value)

    def _fields(self, into: dict[str, _Values], at: float, record: Record, names: tuple[str, ...]) -> None:
        for name in names:
            into.setdefault(name, _Values()).add(at, getattr(record, name))

    def finish(self) -> Collected:
        """The collected values, reduced to what a plot can show."""
        out = self.out
        arrays = {name: v.arrays() for name, v in self._scalars.items() if len(v.at)}
        smooth, window = None, 1
        if "loss" in arrays:
            window = max(1, min(len(arrays["loss"][0]) // 20, 10_000))
            smooth = moving_median(*arrays["loss"], window)
        out.layer_names = self._layers.names()
        out.trace = Trace(
            last_step=out.last_step,
            curves={name: curve(*a) for name, a in arrays.items()},
            smooth=smooth,
            window=window,
            evals=_points(self._evals),
            intervals=_points(self._intervals),
            systems=_points(self._systems),
            maps=self._layers.maps(out.last_step),
        )
        return out


def _end(times: Numbers | None) -> float:
    return 0.0 if times is None else float(times[-1] or 0.0)


def _highest(lr: list[float] | None) -> float | None:
    return max(lr) if lr else None


def _last_is(values: _Values | None, step: int) -> bool:
    return values is not None and bool(len(values.at)) and values.at[-1] == step


def _points(values: dict[str, _Values]) -> dict[str, Points]:
    return {name: v.points() for name, v in values.items() if len(v.at)}
