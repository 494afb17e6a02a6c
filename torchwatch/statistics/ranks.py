"""Rank correlation and its interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]

_LEAST = 3
"""Fewer pairs than this have no correlation worth a number: two always correlate perfectly."""


def ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs; (n,) → (n,).

    NaN are equal to one another here and larger than all numbers: leave them out before.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    shared: Floats = (last - (count - 1) / 2.0)[place.reshape(-1)]
    return shared


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation over the places where both are finite.

    NaN where fewer than three pairs are left, or one side is constant.

    Args:
        a: (n,).
        b: (n,), same shape.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two vectors of one length are compared, not {a.shape} and {b.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < _LEAST:
        return math.nan
    x, y = ranks(a[both]), ranks(b[both])
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / size)) if size > 0 else math.nan


def spearman_interval(correlation: float, pairs: int) -> tuple[float, float]:
    """95 % interval of a rank correlation by Fisher's z with the variance of Bonett and Wright (2000).

    Args:
        correlation: in [−1, 1].
        pairs: number of pairs; below five the interval is (−1, 1).
    """
    if not math.isfinite(correlation) or pairs < _LEAST:
        return math.nan, math.nan
    if pairs < _LEAST + 2:
        return -1.0, 1.0
    middle = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation)))
    half = 1.959964 * math.sqrt((1 + correlation**2 / 2) / (pairs - 3))
    return math.tanh(middle - half), math.tanh(middle + half)
