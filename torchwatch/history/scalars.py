"""Step scalars: the last steps in full, older ones in buckets, anchors that are never dropped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.history.buckets import BUCKET, Buckets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WINDOW = 2048
"""Steps that are kept at full resolution."""

ANCHOR = 100
"""First measured values of every scalar that are never dropped."""

MOST_NAMES = 256
"""Scalars that are kept; names beyond (a metric named after its step, say) would make memory grow."""

_CAPACITY = 2 * WINDOW
_CHUNK = WINDOW // 2
_NUMBERS = frozenset({float, int, bool, np.float64})

Values = npt.NDArray[np.float64]


class Series(NamedTuple):
    """Measured values of one scalar: ``steps`` (n,) int64 and ``values`` (n,) float64, oldest first.

    Steps at which the scalar was not measured are not in it; a NaN in ``values`` was measured as NaN.
    The arrays are read-only views: valid during the pass in which they were asked for.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


class Scalars:
    """All step scalars in one table, one row per name and one column per step.

    The table is twice as wide as the window: it fills from the left, and when it is full the last window
    moves to the front. So every series is one slice, and appending copies only once in 2,048 steps.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._rows: dict[str, int] = {}
        self._steps = np.zeros(_CAPACITY, np.int64)
        self._values = np.full((16, _CAPACITY), math.nan)
        self._measured = np.zeros((16, _CAPACITY), np.bool_)
        self._gap = np.zeros(16, np.int64)  # per row: position after the last unmeasured step
        self._end = 0
        self._folded = 0
        self._buckets = Buckets(16)
        self._anchors: list[tuple[list[int], list[float]]] = []
        self._lowest = np.full(16, math.inf)
        self._lowest_at = np.zeros(16, np.int64)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def put(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one step; a value that is None or no number was not measured."""
        at = self._room(1)
        self._steps[at] = step
        for name, value in values.items():
            number = value if type(value) is float else _number(value)
            row = None if number is None else self._row(name, at)
            if number is not None and row is not None:
                self._values[row, at] = number
                self._measured[row, at] = True
                self._remember(row, step, number)
        rows = len(self._rows)
        self._gap[:rows][~self._measured[:rows, at]] = at + 1
        self._fold()

    def extend(self, steps: Sequence[int], values: Mapping[str, Sequence[Any] | Values]) -> None:
        """Append consecutive steps: the same as putting them one by one. Arrays are measured throughout."""
        for start in range(0, len(steps), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._extend(steps[part], {name: column[part] for name, column in values.items()})

    def _extend(self, steps: Sequence[int], values: Mapping[str, Sequence[Any] | Values]) -> None:
        at = self._room(len(steps))
        where = slice(at, self._end)
        self._steps[where] = steps
        taken = []
        for name, column in values.items():
            numbers, measured = _numbers(column)
            row = self._row(name, at) if measured is None or measured.any() else None
            if row is not None:
                self._values[row, where] = numbers
                self._measured[row, where] = True if measured is None else measured
                taken.append(row)
        self._remember_all(taken, where)
        there = self._measured[: len(self._rows), where]
        gaps = np.flatnonzero(~there.all(axis=1))
        self._gap[gaps] = self._end - there[gaps, ::-1].argmin(axis=1)
        self._fold()

    def window(self, name: str, last: int | None) -> Series:
        """Measured values among the last 2,048 steps, or the ``last`` of them."""
        row = self._rows.get(name)
        low = max(0, self._end - WINDOW)
        if row is None or last == 0:
            return _series(self._steps[:0], self._values[0, :0])
        if self._gap[row] <= low or (last is not None and self._gap[row] <= self._end - last):
            low = low if last is None else max(low, self._end - last)
            return _series(self._steps[low : self._end], self._values[row, low : self._end])
        where = low + np.flatnonzero(self._measured[row, low : self._end])
        if last is not None:
            where = where[-last:]
        return _series(self._steps[where], self._values[row, where])

    def older(self, name: str) -> Series:
        """Means of the finite values before the window, at the middle step of each bucket."""
        row = self._rows.get(name)
        if row is None:
            return _series(self._steps[:0], self._values[0, :0])
        steps, means = self._buckets.means(row)
        rest = slice(self._folded, max(self._folded, self._end - WINDOW))
        values = self._values[row, rest]
        fine = self._measured[row, rest] & np.isfinite(values)
        if fine.any():
            measured = self._steps[rest]
            steps = np.append(steps, (int(measured[0]) + int(measured[-1])) // 2)
            means = np.append(means, values[fine].mean())
        return _series(steps, means)

    def first(self, name: str, count: int) -> Series:
        """The first ``count`` ≤ 100 measured values after step 0."""
        row = self._rows.get(name)
        steps, values = self._anchors[row] if row is not None else ([], [])
        return _series(np.array(steps[:count], np.int64), np.array(values[:count], np.float64))

    def best(self, name: str) -> tuple[int, float] | None:
        """Step and value of the smallest finite value so far; the first of equals."""
        row = self._rows.get(name)
        if row is None or self._lowest[row] == math.inf:
            return None
        return int(self._lowest_at[row]), float(self._lowest[row])

    def _room(self, count: int) -> int:
        """Position of the first of ``count`` new steps, all marked as unmeasured."""
        if self._end + count > _CAPACITY:
            # From the first unfolded step on, not from the window: that one is up to a bucket further back.
            keep = slice(self._folded, self._end)
            shift, size = self._folded, self._end - self._folded
            self._steps[:size] = self._steps[keep].copy()
            self._values[:, :size] = self._values[:, keep].copy()
            self._measured[:, :size] = self._measured[:, keep].copy()
            self._measured[:, size:] = False
            self._end, self._folded = size, 0
            self._gap = np.maximum(0, self._gap - shift)
        at = self._end
        self._end += count
        self.seen += count
        return at

    def _fold(self) -> None:
        buckets = (self._end - self._folded - WINDOW) // BUCKET
        if buckets > 0:
            part = slice(self._folded, self._folded + buckets * BUCKET)
            rows = len(self._rows)
            self._buckets.add(self._steps[part], self._values[:rows, part], self._measured[:rows, part])
            self._folded = part.stop

    def _row(self, name: str, at: int) -> int | None:
        """The row of a name; a new one has no values before position ``at``."""
        row = self._rows.get(name)
        if row is not None:
            return row
        row = len(self._rows)
        if row >= MOST_NAMES:
            return None
        if row >= len(self._values):
            self._grow()
        self._rows[name] = row
        self._gap[row] = at
        self._anchors.append(([], []))
        return row

    def _grow(self) -> None:
        more = len(self._values)
        self._values = np.concatenate([self._values, np.full((more, _CAPACITY), math.nan)])
        self._measured = np.concatenate([self._measured, np.zeros((more, _CAPACITY), np.bool_)])
        self._gap = np.concatenate([self._gap, np.zeros(more, np.int64)])
        self._lowest = np.concatenate([self._lowest, np.full(more, math.inf)])
        self._lowest_at = np.concatenate([self._lowest_at, np.zeros(more, np.int64)])
        self._buckets.grow(more)

    def _remember(self, row: int, step: int, value: float) -> None:
        steps, values = self._anchors[row]
        if len(steps) < ANCHOR and step > 0:
            steps.append(step)
            values.append(value)
        if value < self._lowest[row] and math.isfinite(value):
            self._lowest[row], self._lowest_at[row] = value, step

    def _remember_all(self, rows: list[int], where: slice) -> None:
        """Anchors and smallest values of the rows, as :meth:`_remember` keeps them step by step."""
        if not rows:
            return
        steps, values, measured = self._steps[where], self._values[rows, where], self._measured[rows, where]
        for at, row in enumerate(rows):
            kept, numbers = self._anchors[row]
            if len(kept) < ANCHOR:
                fresh = np.flatnonzero(measured[at] & (steps > 0))[: ANCHOR - len(kept)]
                kept.extend(steps[fresh].tolist())
                numbers.extend(values[at, fresh].tolist())
        fine = np.where(measured & np.isfinite(values), values, math.inf)
        places = fine.argmin(axis=1)
        lowest = fine[np.arange(len(rows)), places]
        for at in np.flatnonzero(lowest < self._lowest[rows]).tolist():
            self._lowest[rows[at]], self._lowest_at[rows[at]] = lowest[at], steps[places[at]]


def _series(steps: npt.NDArray[np.int64], values: Values) -> Series:
    steps, values = steps.view(), values.view()
    steps.flags.writeable = values.flags.writeable = False
    return Series(steps, values)


def _number(value: Any) -> float | None:
    """The value as float; None for what is no number (a hand-edited file can hold anything)."""
    return float(value) if isinstance(value, (int, float, np.number, np.bool_)) else None


def _numbers(column: Sequence[Any] | Values) -> tuple[Values, npt.NDArray[np.bool_] | None]:
    """Values and which of them were measured; None: all."""
    if isinstance(column, np.ndarray):
        return column, None
    if set(map(type, column)) <= _NUMBERS:
        return np.array(column, np.float64), None
    numbers = [_number(v) for v in column]
    measured = np.array([v is not None for v in numbers], np.bool_)
    return np.array([math.nan if v is None else v for v in numbers], np.float64), measured
