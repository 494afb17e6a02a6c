"""Reads a run's records once, in bounded memory, into what the report draws and lists.

Step scalars are kept in full until the end (16 bytes a value: 130 MB for eight scalars of a million
steps); layer columns are thinned to at most :data:`_MOST_SEEN` observations while they arrive.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from torchwatch.records import (
    Column,
    End,
    Epoch,
    Eval,
    Interval,
    Layout,
    Log,
    Note,
    Record,
    RunHeader,
    Step,
    StepColumns,
    Steps,
    System,
    is_bad,
    is_missing,
)
from torchwatch.report.trace import Floats, LayerMap, Points, Trace, curve, layer_map, moving_mean

_SCALARS = ("loss", "grad_norm", "grad_norm_preclip", "update_ratio", "step_time_s")
_INTERVALS = (
    "loss_mean",
    "samples_per_s",
    "steps_per_s",
    "wait_share",
    "rss_bytes",
    "cuda_allocated_bytes",
    "cuda_reserved_bytes",
)
_SYSTEMS = ("rss_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes")
_MOST_SEEN = 1024
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
        for a, v in zip(at, values, strict=False):
            self.add(a, v)

    def points(self) -> Points:
        """All of them, or every n-th when there are more than a plot can show."""
        stride = -(-len(self.at) // _MOST_POINTS) or 1
        return Points(np.array(self.at)[::stride], np.array(self.values)[::stride])

    def arrays(self) -> tuple[npt.NDArray[np.int64], Floats]:
        return np.array(self.at).astype(np.int64), np.array(self.values)


class _Seen:
    """Observations of one number per layer, halved when there are too many; bad ones are never lost."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[Floats] = []
        self._bad: list[npt.NDArray[np.bool_]] = []
        self._stride = 1
        self._waiting = 0

    def add(self, step: int, values: Floats, bad: npt.NDArray[np.bool_]) -> None:
        self._waiting += 1
        if self._waiting < self._stride and self._steps:
            self._bad[-1] = _either(self._bad[-1], bad)
            return
        self._waiting = 0
        self._steps.append(step)
        self._values.append(values)
        self._bad.append(bad)
        if len(self._steps) >= _MOST_SEEN:
            self._halve()

    def _halve(self) -> None:
        self._stride *= 2
        self._bad = [_either(a, b) for a, b in zip(self._bad[::2], self._bad[1::2], strict=True)]
        self._steps, self._values = self._steps[::2], self._values[::2]

    def layers(self, names: list[str], order: list[int], last_step: int) -> LayerMap | None:
        """The map of all observations, rows in the given order."""
        width = len(names)
        values = np.array([_wide(v, width) for v in self._values]).reshape(-1, width)[:, order]
        bad = np.array([_wide(b.astype(float), width) for b in self._bad]).reshape(-1, width)[:, order] == 1.0
        return layer_map([names[i] for i in order], np.array(self._steps, np.int64), values, bad, last_step)


def _wide(values: Floats, width: int) -> Floats:
    out = np.full(width, np.nan)
    out[: len(values)] = values
    return out


def _either(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    wide, narrow = (a, b) if len(a) >= len(b) else (b, a)
    out = wide.copy()
    out[: len(narrow)] |= narrow
    return out


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
        self._epochs: list[int] = []
        self._rows: dict[str, int] = {}
        self._seen: dict[str, _Seen] = {}
        self._shape = _Shape(Layout(), self._rows)

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
                self._shape = _Shape(record, self._rows)
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
        self._columns(record.step, record)

    def _fast_steps(self, record: Steps) -> None:
        if not record.step:
            return
        self._moved(len(record.step), record.step[-1], record.time_s[-1] if record.time_s else 0.0)
        for name in _SCALARS:
            self._scalar(name).add_all(record.step, getattr(record, name) or [])
        self._scalar("lr").add_all(record.step, [_highest(lr) for lr in record.lr or []])
        for name, values in (record.metrics or {}).items():
            self._metric(name, record.step, values)
        for index, columns in (record.columns or {}).items():
            self._columns(record.step[int(index)], columns)

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
        """An epoch's end, and the metrics given to it that no evaluation record carries."""
        self._epochs.append(record.step)
        given = {k: v for k, v in record.metrics.items() if not _last_is(self._evals.get(k), record.step)}
        self._named(self._evals, record.step, given)

    def _named(self, into: dict[str, _Values], step: int, metrics: dict[str, float | None]) -> None:
        for name, value in metrics.items():
            if name in into or len(into) < _MOST_METRICS:
                into.setdefault(name, _Values()).add(step, value)

    def _fields(self, into: dict[str, _Values], at: float, record: Record, names: tuple[str, ...]) -> None:
        for name in names:
            into.setdefault(name, _Values()).add(at, getattr(record, name))

    def _columns(self, step: int, columns: Step | StepColumns) -> None:
        shape, activations = self._shape, columns.activations or {}
        self._see("gradients", step, shape.gradient_rms(columns.grad_norms))
        self._see("updates", step, shape.largest(columns.update_ratios))
        self._see("dead", step, shape.per_layer(activations.get("dead_fraction")))
        self._see("zero", step, shape.per_layer(activations.get("zero_fraction")))

    def _see(self, kind: str, step: int, cells: tuple[Floats, npt.NDArray[np.bool_]] | None) -> None:
        if cells is not None:
            self._seen.setdefault(kind, _Seen()).add(step, *cells)

    def finish(self) -> Collected:
        """The collected values, reduced to what a plot can show."""
        out = self.out
        names, order = list(self._rows), self._row_order()
        maps = {kind: seen.layers(names, order, out.last_step) for kind, seen in self._seen.items()}
        arrays = {name: v.arrays() for name, v in self._scalars.items() if len(v.at)}
        smooth, window = None, 1
        if "loss" in arrays:
            window = max(1, min(len(arrays["loss"][0]) // 20, 10_000))
            smooth = moving_mean(*arrays["loss"], window)
        out.layer_names = tuple(names[i] for i in order)
        out.trace = Trace(
            last_step=out.last_step,
            curves={name: curve(*a) for name, a in arrays.items()},
            smooth=smooth,
            window=window,
            evals=_points(self._evals),
            intervals=_points(self._intervals),
            systems=_points(self._systems),
            maps={kind: m for kind, m in maps.items() if m is not None},
            epochs=np.array(self._epochs, np.int64),
        )
        return out

    def _row_order(self) -> list[int]:
        """Rows as the first forward pass called the layers; those never called come last."""
        called = {x.name: x.order for x in (self.out.layout or Layout()).layers}
        ranks = [called.get(name) for name in self._rows]
        return sorted(range(len(ranks)), key=lambda i: (ranks[i] is None, ranks[i] or 0, i))


class _Shape:
    """How the columns of a layout become one number per layer; a layer keeps its row across layouts."""

    def __init__(self, layout: Layout, rows: dict[str, int]) -> None:
        self._layers = np.array([rows.setdefault(x.name, len(rows)) for x in layout.layers], np.int64)
        self._width = len(rows)
        usable = [p for p in layout.parameters if 0 <= p.layer < len(layout.layers)]
        self._whole = len(usable) == len(layout.parameters)
        self._owner = np.array([self._layers[p.layer] for p in usable], np.int64)
        self._sizes = np.array([max(1, int(np.prod(p.shape, dtype=float))) for p in usable], np.float64)

    def gradient_rms(self, norms: Column | None) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
        """Root mean square of all gradients of a layer: √(Σ‖g‖² / Σn)."""
        if norms is None or not self._fits(norms, self._owner):
            return None
        bad, measured = is_bad(norms), ~is_missing(norms)
        good = measured & ~bad
        # float64: the square of a float32 norm may overflow float32
        squares = np.bincount(self._owner[good], norms[good].astype(np.float64) ** 2, minlength=self._width)
        counts = np.bincount(self._owner[good], self._sizes[good], minlength=self._width)
        with np.errstate(divide="ignore", invalid="ignore"):
            rms = np.where(counts > 0, np.sqrt(squares / counts), np.nan)
        return rms, self._flags(self._owner, bad)

    def largest(self, ratios: Column | None) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
        """The value of each layer's largest parameter; biases start near zero and their ratios say little."""
        if ratios is None or not self._fits(ratios, self._owner):
            return None
        bad = is_bad(ratios)
        values, biggest = np.full(self._width, np.nan), np.zeros(self._width)
        for i in np.flatnonzero(np.isfinite(ratios)):
            if self._sizes[i] > biggest[self._owner[i]]:
                values[self._owner[i]], biggest[self._owner[i]] = ratios[i], self._sizes[i]
        return values, self._flags(self._owner, bad)

    def per_layer(self, column: Column | None) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
        """A column that already has one entry per layer."""
        if column is None or not self._fits(column, self._layers):
            return None
        values = np.full(self._width, np.nan)
        finite = np.isfinite(column)
        values[self._layers[finite]] = column[finite]
        return values, self._flags(self._layers, is_bad(column))

    def _fits(self, column: Column, owner: npt.NDArray[np.int64]) -> bool:
        """A column of another width belongs to a layout that was lost; guessing would name wrong layers."""
        return self._whole and len(column) == len(owner)

    def _flags(self, owner: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        flags = np.zeros(self._width, bool)
        flags[owner[bad]] = True
        return flags


def _highest(lr: list[float] | None) -> float | None:
    return max(lr) if lr else None


def _last_is(values: _Values | None, step: int) -> bool:
    return values is not None and bool(len(values.at)) and values.at[-1] == step


def _points(values: dict[str, _Values]) -> dict[str, Points]:
    return {name: v.points() for name, v in values.items() if len(v.at)}
