"""Whether several numbers together are unusual."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics._values import Values
from torchwatch.statistics.tails import f_tail

_EFFICIENCY = 0.8
"""Of the τ scale at the normal distribution (Maronna and Zamar 2002)."""

_C1, _C2 = 4.5, 3.0
"""Tuning constants of Maronna and Zamar, in median absolute deviations."""

_QUARTILE = 0.6744897501960817
_NORMAL = NormalDist()
_CUT = _C2 * _QUARTILE
_CONSISTENCY = 2 * (_NORMAL.cdf(_CUT) - 0.5 - _CUT * _NORMAL.pdf(_CUT) + _CUT**2 * _NORMAL.cdf(-_CUT))
"""E[min(x², c²)] of a standard normal variable x."""

_TINY = 1e-300
_STILL = 1e-100
"""σ of a coordinate that never changed."""

_RIDGE = 1e-6
"""Least variance of a direction, in that of the coordinates: some may always move together."""


class Outlier(NamedTuple):
    """How far a point lies from others.

    ``squared`` is its squared robust Mahalanobis distance, ``p`` the probability of one as large, and
    ``scores`` (d,) the distance of each coordinate alone, in its own σ.
    """

    squared: float
    p: float
    scores: Values


def mahalanobis(point: npt.ArrayLike, others: npt.ArrayLike, least_sigma: float = 0.0) -> Outlier:
    """The robust Mahalanobis distance of a point from n others.

    Centre and covariance are the orthogonalised Gnanadesikan–Kettenring estimate with the τ scale:
    Maronna and Zamar, "Robust Estimates of Location and Dispersion for High-Dimensional Datasets",
    Technometrics 44 (2002). The p-value is that of a new observation, Hotelling's T² (1931) as an F
    distribution, for as many others as a standard deviation of that precision takes: 80 % of n.

    Args:
        point: (d,) finite numbers.
        others: (n, d) finite numbers.
        least_sigma: smallest σ of a coordinate (their unit): what stood still is not infinitely precise.

    Returns:
        The outlier; NaN and a p of 1 where there are too few others.
    """
    x, sample = np.asarray(point, np.float64), np.asarray(others, np.float64)
    n, d = sample.shape
    effective = _EFFICIENCY * n
    if effective <= d + 1:
        return Outlier(math.nan, 1.0, np.full(d, math.nan))
    centre, measured = tau_scale(sample)
    sigma = np.maximum(measured, max(least_sigma, _STILL))
    scaled, scores = (sample - centre) / sigma, (x - centre) / sigma
    directions = _directions(scaled)
    middles, spread = tau_scale(scaled @ directions)
    # What the least σ adds to a coordinate, it adds to every direction that has a part of it.
    spread = np.sqrt(np.square(spread) + np.square(directions).T @ (1 - np.square(measured / sigma)) + _RIDGE)
    mine = scores @ directions
    with np.errstate(over="ignore"):
        squared = float(np.square((mine - middles) / spread).sum())
    f = squared * effective * (effective - d) / (d * (effective**2 - 1))
    return Outlier(squared, f_tail(f, d, effective - d), scores)


def _directions(scaled: Values) -> Values:
    """Eigenvectors of the pairwise robust correlations, (d, d)."""
    d = scaled.shape[1]
    first, second = np.triu_indices(d, 1)
    both = tau_scale(scaled[:, first] + scaled[:, second])[1]
    apart = tau_scale(scaled[:, first] - scaled[:, second])[1]
    correlation = np.eye(d)
    correlation[first, second] = correlation[second, first] = (np.square(both) - np.square(apart)) / 4
    vectors: Values = np.linalg.eigh(correlation)[1]
    return vectors


def tau_scale(sample: Values) -> tuple[Values, Values]:
    """Location and scale of every column, (n, d) → (d,) each, by Maronna and Zamar's τ estimates.

    A mean with Tukey's weights, and the root of a mean of squares that are cut off at 3 times the median
    absolute deviation; made consistent at the normal distribution.
    """
    middle = np.median(sample, axis=0)
    deviation = np.median(np.abs(sample - middle), axis=0)
    unit = np.maximum(deviation, _TINY)
    weights = np.square(np.maximum(0.0, 1 - np.square((sample - middle) / (_C1 * unit))))
    location = (weights * (sample - middle)).sum(axis=0) / weights.sum(axis=0)
    squares = np.square(np.minimum(np.abs((sample - middle - location) / unit), _C2)).mean(axis=0)
    return middle + location, deviation * np.sqrt(squares / _CONSISTENCY)
