"""Distances between two samples of a number or of classes, with what chance alone would give."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def ks(a: Floats, b: Floats) -> tuple[float, float]:
    """Two-sample Kolmogorov–Smirnov statistic and its asymptotic p value.

    p is the limit of Kolmogorov (1933) at (√N + 0.12 + 0.11/√N)·D with N = nm/(n + m) (Stephens, J. R. Stat.
    Soc. B 32, 1970). It holds for independent values.

    Args:
        a: (n,) finite values.
        b: (m,) finite values.

    Returns:
        D from 0 to 1 and p; NaN where one is empty.
    """
    if not a.size or not b.size:
        return math.nan, math.nan
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    below = np.searchsorted(a, both, side="right") / a.size - np.searchsorted(b, both, side="right") / b.size
    statistic = float(np.abs(below).max())
    size = math.sqrt(a.size * b.size / (a.size + b.size))
    return statistic, kolmogorov((size + 0.12 + 0.11 / size) * statistic)


def kolmogorov(x: float) -> float:
    """P(K > x) of Kolmogorov's distribution: 2 Σ (−1)^(k−1) exp(−2 k² x²)."""
    if x < 0.2:
        return 1.0
    terms = (math.exp(-2 * (k * x) ** 2) * (1 if k % 2 else -1) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def wasserstein(a: Floats, b: Floats) -> float:
    """First Wasserstein distance ∫ |F_a − F_b|, in the unit of the values; NaN where one is empty."""
    if not a.size or not b.size:
        return math.nan
    a, b = np.sort(a), np.sort(b)
    both = np.sort(np.concatenate([a, b]))
    f = np.searchsorted(a, both[:-1], side="right") / a.size
    g = np.searchsorted(b, both[:-1], side="right") / b.size
    return float((np.abs(f - g) * np.diff(both)).sum())


def variation(a: Counts, b: Counts) -> float:
    """Total variation distance of two distributions given by counts (C,); NaN where one is empty."""
    if not a.sum() or not b.sum():
        return math.nan
    return 0.5 * float(np.abs(a / a.sum() - b / b.sum()).sum())


def variation_by_chance(a: Counts, b: Counts, rng: np.random.Generator, draws: int = 200) -> float:
    """95 % quantile of the total variation distance when both are drawn from their common distribution."""
    n, m = int(a.sum()), int(b.sum())
    if not n or not m:
        return math.nan
    common = (a + b) / (n + m)
    one, other = rng.multinomial(n, common, draws) / n, rng.multinomial(m, common, draws) / m
    return float(np.quantile(0.5 * np.abs(one - other).sum(1), 0.95))
