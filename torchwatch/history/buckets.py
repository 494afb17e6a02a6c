"""Old values as buckets of count, mean, min and max; when there are too many, all double in width."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BUCKET = 64
"""Steps in a bucket at first."""

MOST = 128
"""Buckets that are kept; one more and neighbours are merged, so a bucket is then twice as wide."""

Values = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


class Buckets:
    """Buckets of many scalars at once: one row per scalar. Only finite values count."""

    def __init__(self, rows: int) -> None:
        self._edges = np.zeros((MOST, 2), np.int64)  # first and last step
        self._count = np.zeros((rows, MOST))
        self._mean = np.zeros((rows, MOST))
        self._low = np.full((rows, MOST), math.inf)
        self._high = np.full((rows, MOST), -math.inf)
        self._used = 0
        self._width = 1  # in units of BUCKET
        self._filled = 0  # units in the last bucket

    def grow(self, rows: int) -> None:
        """Room for more scalars, which have no old values."""
        self._count = np.pad(self._count, ((0, rows), (0, 0)))
        self._mean = np.pad(self._mean, ((0, rows), (0, 0)))
        self._low = np.pad(self._low, ((0, rows), (0, 0)), constant_values=math.inf)
        self._high = np.pad(self._high, ((0, rows), (0, 0)), constant_values=-math.inf)

    def add(self, steps: Steps, values: Values, measured: npt.NDArray[np.bool_]) -> None:
        """Take in one or several times ``BUCKET`` steps: ``values`` and ``measured`` are (scalars, steps)."""
        rows, several = len(values), len(steps) // BUCKET
        fine = (measured & np.isfinite(values)).reshape(rows, several, BUCKET)
        values = values.reshape(rows, several, BUCKET)
        if fine.all():
            count = np.full((rows, several), float(BUCKET))
            mean, low, high = values.sum(axis=2) / BUCKET, values.min(axis=2), values.max(axis=2)
        else:
            count = fine.sum(axis=2, dtype=np.float64)
            total = np.where(fine, values, 0.0).sum(axis=2)
            mean = np.divide(total, count, out=np.zeros((rows, several)), where=count > 0)
            low = np.where(fine, values, math.inf).min(axis=2)
            high = np.where(fine, values, -math.inf).max(axis=2)
        for i in range(several):
            self._open(int(steps[i * BUCKET]))
            at = self._used - 1
            self._mean[:rows, at] = _joined(
                self._mean[:rows, at], self._count[:rows, at], mean[:, i], count[:, i]
            )
            self._count[:rows, at] += count[:, i]
            np.minimum(self._low[:rows, at], low[:, i], out=self._low[:rows, at])
            np.maximum(self._high[:rows, at], high[:, i], out=self._high[:rows, at])
            self._edges[at, 1] = steps[(i + 1) * BUCKET - 1]
            self._filled += 1

    def _open(self, step: int) -> None:
        """Make sure that the last bucket has room; a new one begins at the step."""
        if self._filled == self._width or not self._used:
            if self._used == MOST:
                self._halve()
            self._used += 1
            self._filled = 0
            self._edges[self._used - 1] = step

    def means(self, row: int) -> tuple[Steps, Values]:
        """Middle step and mean of every bucket that holds a finite value."""
        used = np.flatnonzero(self._count[row, : self._used])
        return self._edges[used].sum(axis=1) // 2, self._mean[row, used]

    def extremes(self, row: int) -> tuple[Values, Values]:
        """Smallest and largest finite value of the same buckets."""
        used = np.flatnonzero(self._count[row, : self._used])
        return self._low[row, used], self._high[row, used]

    def _halve(self) -> None:
        half = MOST // 2
        left, right = slice(0, None, 2), slice(1, None, 2)
        mean = _joined(self._mean[:, left], self._count[:, left], self._mean[:, right], self._count[:, right])
        self._mean[:, :half] = mean
        self._count[:, :half] = self._count[:, left] + self._count[:, right]
        self._low[:, :half] = np.minimum(self._low[:, left], self._low[:, right])
        self._high[:, :half] = np.maximum(self._high[:, left], self._high[:, right])
        self._edges[:half] = np.stack([self._edges[left, 0], self._edges[right, 1]], axis=1)
        self._mean[:, half:] = self._count[:, half:] = 0
        self._low[:, half:], self._high[:, half:] = math.inf, -math.inf
        self._used, self._width, self._filled = half, 2 * self._width, 2 * self._width


def _joined(mean: Values, count: Values, other: Values, more: Values) -> Values:
    """Mean of two groups; a sum would overflow where the values are near the largest float."""
    share = np.divide(more, count + more, out=np.zeros(np.shape(mean)), where=count + more > 0)
    result: Values = mean * (1 - share) + other * share
    return result
