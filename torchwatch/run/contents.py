"""What is kept of a run file that is read into memory, within stated bounds."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from torchwatch.records import (
    STEP_COLUMNS,
    STEP_NUMBERS,
    STEP_SCALARS,
    Alert,
    Column,
    End,
    Epoch,
    Eval,
    Interval,
    Layout,
    Log,
    Note,
    Record,
    Step,
    StepColumns,
    Steps,
    System,
)
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMN_BYTES = 16 << 20
"""Memory for all observations of one column (bytes); beyond it every second one is dropped."""

MOST_RECORDS = 20_000
"""Records kept of one kind (interval, epoch, eval, system, log, note); then every second one is dropped."""

_PER_GROUP = ("lr", "momentum", "weight_decay")

SCALARS = tuple(n for n in STEP_SCALARS if n in (*STEP_NUMBERS, *_PER_GROUP))
"""Names that every run can be asked for, measured or not."""

_OBJECT_BYTES = 300  # what an array object costs beyond its numbers

T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Series(NamedTuple):
    """Measured values of one scalar: ``steps`` (n,) int64 and ``values`` (n,) float64, oldest first.

    Steps at which the scalar was not measured are not in it; a NaN in ``values`` was measured as NaN.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class ColumnSeries(NamedTuple):
    """Observations of one column under one layout.

    ``steps`` (n,) int64, ``values`` (n, width) float32 with MISSING entries, width being the layout's number
    of parameters, or of layers for ``activations.*``. ``every``: each ``every``-th observation was kept.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    layout: Layout
    every: int


def series_of(pairs: Iterable[tuple[int, Any]]) -> Series:
    """The pairs of step and value whose value is not None, as a series."""
    seen = [(step, value) for step, value in pairs if value is not None]
    return Series(np.array([s for s, _ in seen], np.int64), np.array([v for _, v in seen], np.float64))


class _Scalar:
    """One scalar over the rows of the run; the rows are only kept once one was left out."""

    def __init__(self) -> None:
        self._values = array("d")
        self._rows: array[int] | None = None

    def extend(self, row: int, values: list[Any] | npt.NDArray[np.float64]) -> None:
        whole = isinstance(values, np.ndarray)
        if row == len(self._values) and self._rows is None and (whole or None not in values):
            if isinstance(values, np.ndarray):
                self._values.frombytes(values.tobytes())
            else:
                self._values.extend(values)
            return
        if self._rows is None:
            self._rows = array("q", range(len(self._values)))
        for i, value in enumerate(values, row):
            if value is not None:
                self._rows.append(i)
                self._values.append(value)

    def series(self, steps: npt.NDArray[np.int64]) -> Series:
        values = np.frombuffer(self._values, np.float64)
        rows = slice(len(values)) if self._rows is None else np.frombuffer(self._rows, np.int64)
        return Series(steps[rows], values)


class _Thinning(Generic[T]):
    """Items in order; whenever they take more than ``most``, every second one is dropped."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen = self._size = 0
        self._items: list[tuple[int, int, T]] = []
        self.every = 1

    def add(self, item: T, size: int = 1) -> None:
        index, self._seen = self._seen, self._seen + 1
        if index % self.every:
            return
        self._items.append((index, size, item))
        self._size += size
        if self._size > self._most:
            self.every *= 2
            self._items = [entry for entry in self._items if entry[0] % self.every == 0]
            self._size = sum(size for _, size, _ in self._items)

    @property
    def items(self) -> list[T]:
        return [item for _, _, item in self._items]


class _ColumnStore(_Thinning[tuple[int, Column, Layout]]):
    """The observations of one column, each with its step and its layout."""

    def series(self) -> list[ColumnSeries]:
        segments: list[tuple[Layout, list[int], list[Column]]] = []
        for step, values, layout in self.items:
            if not segments or not _same_names(segments[-1][0], layout):
                segments.append((layout, [], []))
            segments[-1][1].append(step)
            segments[-1][2].append(values)
        return [
            ColumnSeries(np.array(steps, np.int64), np.stack(rows), layout, self.every)
            for layout, steps, rows in segments
        ]


def _same_names(one: Layout, other: Layout) -> bool:
    """Whether columns mean the same under both: a layout is also written when only its coverage changed."""
    return one is other or (
        [x.name for x in one.layers] == [x.name for x in other.layers]
        and [p.name for p in one.parameters] == [p.name for p in other.parameters]
    )


@dataclass
class Contents:
    """What one pass over the file leaves in memory."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    scalars: dict[str, _Scalar] = field(default_factory=dict)
    columns: dict[str, _ColumnStore] = field(default_factory=dict)
    records: dict[type[Record], _Thinning[Any]] = field(
        default_factory=lambda: {
            cls: _Thinning(MOST_RECORDS) for cls in (Interval, Epoch, Eval, System, Log, Note)
        }
    )
    alerts: list[Alert] = field(default_factory=list)
    layout: Layout | None = None
    end: End | None = None
    torn: int = 0

    @classmethod
    def of(cls, path: Path) -> Contents:
        """Read the file."""
        contents = cls()
        with read_records(path) as reader:
            for record in reader:
                contents.add(record)
            contents.end, contents.torn = reader.end, reader.torn_lines
        return contents

    def add(self, record: Record) -> None:
        """Take in one record."""
        kind = type(record)
        if isinstance(record, Step):
            self._add_step(record)
        elif isinstance(record, Steps):
            self._add_steps(record)
        elif isinstance(record, Layout):
            self.layout = record
        elif isinstance(record, Alert):
            self.alerts.append(record)
        elif kind in self.records:
            self.records[kind].add(record)

    def kept(self, kind: type[R]) -> list[R]:
        """The records of a kind, oldest first."""
        return self.records[kind].items

    @property
    def thinned(self) -> dict[str, int]:
        """What was thinned out: a column or a kind of record, and that every n-th was kept."""
        stores: dict[str, _Thinning[Any]] = {cls.kind: kept for cls, kept in self.records.items()}
        return {name: s.every for name, s in (stores | self.columns).items() if s.every > 1}

    def _add_step(self, record: Step) -> None:
        row = len(self.steps)
        self.steps.append(record.step)
        for name in SCALARS:
            value = getattr(record, name)
            if value is not None:
                self._put(name, row, [_largest(value) if name in _PER_GROUP else value])
        for name, value in (record.metrics or {}).items():
            self._put(f"metrics.{name}", row, [value])
        self._add_columns(record.step, record)

    def _add_steps(self, record: Steps) -> None:
        row = len(self.steps)
        self.steps.extend(record.step)
        for name in SCALARS:
            values = getattr(record, name)
            if values is not None:
                self._put(name, row, [_largest(v) for v in values] if name in _PER_GROUP else values)
        for name, values in (record.metrics or {}).items():
            self._put(f"metrics.{name}", row, values)
        for i, step in enumerate(record.step if record.columns else ()):
            columns = (record.columns or {}).get(str(i))
            if columns is not None:
                self._add_columns(step, columns)

    def _put(self, name: str, row: int, values: list[Any] | npt.NDArray[np.float64]) -> None:
        scalar = self.scalars.get(name)
        if scalar is None:
            scalar = self.scalars[name] = _Scalar()
        scalar.extend(row, values)

    def _add_columns(self, step: int, columns: Step | StepColumns) -> None:
        if self.layout is None:
            return
        for name in STEP_COLUMNS[:-1]:
            self._observe(name, step, getattr(columns, name), self.layout, len(self.layout.parameters))
        for statistic, values in (columns.activations or {}).items():
            self._observe(f"activations.{statistic}", step, values, self.layout, len(self.layout.layers))

    def _observe(self, name: str, step: int, values: Column | None, layout: Layout, width: int) -> None:
        if values is None or len(values) != width:  # of another width, it cannot speak of this layout
            return
        store = self.columns.get(name)
        if store is None:
            store = self.columns[name] = _ColumnStore(COLUMN_BYTES)
        store.add((step, values, layout), values.nbytes + _OBJECT_BYTES)


def _largest(rates: list[float] | None) -> float | None:
    return max(rates, default=None) if rates is not None else None
