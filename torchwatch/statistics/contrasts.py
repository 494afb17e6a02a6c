"""Two sides compared: effect size, and permutation tests of several quantities at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics.metrics import over

Values = npt.NDArray[np.float64]

DRAWS = 2000
_SLACK = 1e-9


class Contrast(NamedTuple):
    """Left side minus right, for each quantity (M,)."""

    effect: Values
    p: Values
    adjusted_p: Values


def cohen_d(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Difference of the means over the pooled standard deviation (Cohen 1988); NaN where that is 0."""
    a, b = np.asarray(left, np.float64), np.asarray(right, np.float64)
    if a.size < 2 or b.size < 2:
        return float("nan")
    pooled = (a.var(ddof=1) * (a.size - 1) + b.var(ddof=1) * (b.size - 1)) / (a.size + b.size - 2)
    return float(over(a.mean() - b.mean(), np.sqrt(pooled)))


def contrast(
    values: Values, left: npt.NDArray[np.bool_], rng: np.random.Generator, draws: int = DRAWS
) -> Contrast:
    """Compare samples of the left side with the others, in each of M quantities.

    The sides are shuffled; p is the share of shuffles with a difference of means at least as large, on either
    side of 0, the observed one counted in. The adjusted p compares each with the largest standardised
    difference of all quantities (Westfall & Young 1993).

    Args:
        values: finite, (N, M).
        left: which samples are on the left (N,).
        rng: chance.
        draws: how many shuffles.

    Returns:
        Effect sizes and p, at least 1 / (draws + 1); NaN effect and p = 1 for a quantity that does not vary.
    """
    values = np.asarray(values, np.float64)
    count, quantities = values.shape
    size = int(left.sum())
    effect = np.array([cohen_d(values[left, m], values[~left, m]) for m in range(quantities)])
    if size in (0, count):
        return Contrast(effect, np.ones(quantities), np.ones(quantities))
    spread = values.std(0)
    varies = spread > 1e-12 * np.maximum(np.abs(values).max(0), 1e-300)
    scaled = np.where(varies, (values - values.mean(0)) / np.where(varies, spread, 1.0), 0.0)
    observed = np.abs(left.astype(np.float64) @ scaled)
    beyond, beyond_all = np.zeros(quantities), np.zeros(quantities)
    sides = left.astype(np.float64)
    for _ in range(draws):
        drawn = np.abs(rng.permutation(sides) @ scaled)
        beyond += drawn >= observed - _SLACK
        beyond_all += drawn.max() >= observed - _SLACK
    p, adjusted = (np.where(varies, (1 + b) / (draws + 1), 1.0) for b in (beyond, beyond_all))
    return Contrast(np.where(varies, effect, np.nan), p, adjusted)
