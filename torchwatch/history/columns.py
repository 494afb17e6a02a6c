"""Columns under the present layout: the first and the last observations, and a median per interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.records import Column, is_bad, is_missing, missing_column

OBSERVATIONS = 64
"""Observations of a column that are kept."""

INTERVALS = 32
"""Intervals whose median is kept."""

FIRST = 16
"""Observations of a column among which each entry's first value is sought; after them, interval medians."""


class Columns(NamedTuple):
    """Observations of one column: ``steps`` (n,) int64, ``values`` (n, width) float32 (with MISSING entries).

    The arrays are read-only views: valid during the pass in which they were asked for.
    """

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


class Ring:
    """The last ``size`` rows of one width, always contiguous (stored as ``Scalars`` are)."""

    def __init__(self, size: int, width: int) -> None:
        self.width = width
        self._size = size
        self._steps = np.zeros(2 * size, np.int64)
        self._values = np.zeros((2 * size, width), np.float32)
        self._end = 0

    def put(self, step: int, row: Column) -> None:
        """Append one row."""
        if self._end == 2 * self._size:
            self._steps[: self._size] = self._steps[self._size :]
            self._values[: self._size] = self._values[self._size :]
            self._end = self._size
        self._steps[self._end] = step
        self._values[self._end] = row
        self._end += 1

    def last(self, count: int | None) -> Columns:
        """The last rows, at most ``count``."""
        keep = self._size if count is None else min(count, self._size)
        low = max(0, self._end - keep)
        steps, values = self._steps[low : self._end], self._values[low : self._end]
        steps.flags.writeable = values.flags.writeable = False
        return Columns(steps, values)


class ColumnHistory:
    """One column: its first values, its last observations and its medians per interval."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.observations = Ring(OBSERVATIONS, width)
        self.medians = Ring(INTERVALS, width)
        self.first = missing_column(width)
        self.first_bad: tuple[int, Column] | None = None
        self._fresh = 0
        self._seen = 0

    def put(self, step: int, column: Column) -> None:
        """Append one observation."""
        self.observations.put(step, column)
        self._fresh += 1
        if self._seen < FIRST:
            self._seen += 1
            self._remember(column)
        if np.isfinite(column).all() or not is_bad(column).any():
            self.first_bad = None
        elif self.first_bad is None:
            self.first_bad = (step, np.array(column, np.float32))

    def close_interval(self, last_step: int) -> None:
        """Keep the median of what came since the last interval closed; nothing where nothing came."""
        if self._fresh:
            median = median_of_finite(self.observations.last(self._fresh).values)
            self.medians.put(last_step, median)
            self._remember(median)
        self._fresh = 0

    def _remember(self, column: Column) -> None:
        """Keep the finite values of entries that had none yet."""
        fresh = is_missing(self.first)
        if fresh.any():
            fresh &= np.isfinite(column)
            self.first[fresh] = column[fresh]


def median_of_finite(values: npt.NDArray[np.float32]) -> Column:
    """Median of each entry over its finite observations (n, width) → (width,).

    NaN where an entry was measured and never finite, MISSING where it was never measured.
    """
    finite = np.isfinite(values)
    ordered = np.sort(np.where(finite, values, np.float32("nan")), axis=0)  # NaN sorts last
    count = finite.sum(axis=0)
    entry = np.arange(values.shape[1])
    low, high = ordered[np.maximum(count - 1, 0) // 2, entry], ordered[count // 2, entry]
    median: Column = np.where(count > 0, low / 2 + high / 2, np.float32("nan")).astype(np.float32)
    never = is_missing(values).all(axis=0)
    median[never] = missing_column(int(never.sum()))
    return median
