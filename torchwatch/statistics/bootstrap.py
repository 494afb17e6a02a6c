"""Bootstrap intervals of means."""

from __future__ import annotations

from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK = 4_000_000
"""Drawn values that are held at a time."""


def mean_interval(
    values: Floats, rng: np.random.Generator, draws: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of independent values (Efron 1979).

    NaN for fewer than two values, or where one is not finite.

    Args:
        values: (n,).
        rng: random numbers.
        draws: resamples.
        confidence: of the interval.
    """
    values = np.asarray(values, dtype=np.float64)
    count = values.size
    if count < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    rows = max(1, _BLOCK // count)
    means = np.concatenate(
        [
            values[rng.integers(count, size=(min(rows, draws - start), count))].mean(1)
            for start in range(0, draws, rows)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
