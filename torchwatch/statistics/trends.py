"""Whether values rise or fall, how fast, and how much they scatter around that."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics._values import Values, finite, points
from torchwatch.statistics.robust import mad_sigma

_NORMAL = NormalDist()
_MOST_POINTS = 200


class Slope(NamedTuple):
    """A line through points: ``slope`` per unit of x with its confidence interval ``low`` … ``high``."""

    slope: float
    intercept: float
    low: float
    high: float


class Trend(NamedTuple):
    """Mann–Kendall statistic ``s``, its normal score ``z`` and the two-sided p-value ``p``."""

    s: int
    z: float
    p: float


def theil_sen(
    values: npt.ArrayLike, positions: npt.ArrayLike | None = None, confidence: float = 0.95
) -> Slope:
    """The median of the slopes between all pairs of points, and its confidence interval.

    Sen, "Estimates of the Regression Coefficient Based on Kendall's Tau", JASA 63 (1968). More than 200
    points are thinned evenly to 200, so the cost is bounded.

    Args:
        values: (n,) numbers in order.
        positions: (n,) where they lie (steps); by default 0, 1, 2 …
        confidence: probability of the interval (share, default 0.95).

    Returns:
        Slope per unit of position, the intercept at position 0, and the interval; all NaN for fewer than two
        finite points at different positions.
    """
    x, y = points(positions, values)
    x, y = _thinned(x), _thinned(y)
    first, second = np.triu_indices(y.size, 1)
    run = x[second] - x[first]
    slopes = np.sort((y[second] - y[first])[run > 0] / run[run > 0])
    if not slopes.size:
        return Slope(math.nan, math.nan, math.nan, math.nan)
    slope = float(np.median(slopes))
    intercept = float(np.median(y) - slope * np.median(x))
    spread = _NORMAL.inv_cdf((1 - confidence) / 2) * math.sqrt(_kendall_variance(y, x))
    upper = min(round((slopes.size - spread) / 2), slopes.size - 1)
    lower = max(round((slopes.size + spread) / 2) - 1, 0)
    return Slope(slope, intercept, float(slopes[lower]), float(slopes[upper]))


def mann_kendall(values: npt.ArrayLike) -> Trend:
    """Whether values rise or fall over time, with correction for ties and for continuity.

    Mann, "Nonparametric Tests Against Trend", Econometrica 13 (1945); Kendall, *Rank Correlation Methods*
    (1975). More than 200 values are thinned evenly to 200. For fewer than 3 values z is 0 and p is 1.
    """
    y = _thinned(finite(values))
    first, second = np.triu_indices(y.size, 1)
    s = int(np.sign(y[second] - y[first]).sum())
    variance = _kendall_variance(y)
    if y.size < 3 or variance <= 0 or s == 0:
        return Trend(s, 0.0, 1.0)
    z = (s - math.copysign(1, s)) / math.sqrt(variance)
    return Trend(s, z, 2 * _NORMAL.cdf(-abs(z)))


def robust_sigma(values: npt.ArrayLike, positions: npt.ArrayLike | None = None) -> float:
    """The σ of the checks: 1.4826 · MAD around the Theil–Sen line, so that a trend is not taken for noise.

    Args:
        values: (n,) numbers in order.
        positions: (n,) where they lie (steps); by default evenly spaced.

    Returns:
        σ in the unit of the values; NaN for fewer than 3 finite ones.
    """
    x, y = points(positions, values)
    if y.size < 3:
        return math.nan
    line = theil_sen(y, x)
    return mad_sigma(y - line.slope * x)


def lag_one(values: npt.ArrayLike, positions: npt.ArrayLike | None = None) -> float:
    """Autocorrelation with the neighbour, of ranks around the Theil–Sen line: −1 for an alternating series.

    The rank correlation of Wald and Wolfowitz, "An Exact Test for Randomness in the Non-Parametric Case",
    Ann. Math. Stat. 14 (1943), without its wrap from the last value to the first. Of n independent values it
    is about −1 ⁄ n with a standard deviation of about 1 ⁄ √n (Bartels, JASA 77, 1982).

    Args:
        values: (n,) numbers in order.
        positions: (n,) where they lie (steps); by default evenly spaced.

    Returns:
        −1 … 1; NaN for fewer than 4 finite values, or for values all on one line.
    """
    x, y = points(positions, values)
    if y.size < 4:
        return math.nan
    ranks = average_ranks(y - theil_sen(y, x).slope * x)
    centred = ranks - ranks.mean()
    total = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / total if total else math.nan


def average_ranks(y: Values) -> Values:
    """Ranks from 1, equal values sharing the mean of theirs. (n,) → (n,)."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    highest = np.cumsum(counts)
    ranks: Values = (highest - (counts - 1) / 2)[inverse]
    return ranks


def generalisation_loss(validation: npt.ArrayLike) -> float:
    """How far the last validation loss lies above the best so far, in percent: 100 · (E / E_opt − 1).

    Prechelt, "Early Stopping – But When?", in *Neural Networks: Tricks of the Trade* (1998). NaN when
    there is no finite value or the best is not positive: a ratio means nothing there.
    """
    fine = finite(validation)
    if not fine.size or fine.min() <= 0:
        return math.nan
    return 100 * (float(fine[-1]) / float(fine.min()) - 1)


def _kendall_variance(y: Values, x: Values | None = None) -> float:
    """Variance of Kendall's S under no trend, less what ties take away (Kendall 1975)."""
    total = _tie_term(np.array([y.size], np.float64))
    for axis in (y,) if x is None else (y, x):
        total -= _tie_term(np.unique(axis, return_counts=True)[1].astype(np.float64))
    return max(0.0, total / 18)


def _tie_term(counts: Values) -> float:
    return float((counts * (counts - 1) * (2 * counts + 5)).sum())


def _thinned(x: Values) -> Values:
    if x.size <= _MOST_POINTS:
        return x
    return x[np.linspace(0, x.size - 1, _MOST_POINTS).round().astype(np.int64)]
