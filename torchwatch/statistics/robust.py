"""Location and scale that single wild values do not move."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics._values import Values, finite

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation estimate the standard deviation of normal data.

Rousseeuw & Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993): 1 / Φ⁻¹(3/4).
"""


class LogScale(NamedTuple):
    """Where ``n`` positive numbers lie on a logarithmic scale: ``level`` in their unit, ``sigma`` of its ln.

    A value k·``sigma`` above it is ``level`` · exp(k·``sigma``).
    """

    level: float
    sigma: float
    n: int


def median(values: npt.ArrayLike) -> float:
    """Median of the finite values; NaN when there is none."""
    fine = finite(values)
    return float(np.median(fine)) if fine.size else math.nan


def mad_sigma(values: npt.ArrayLike) -> float:
    """Standard deviation as 1.4826 · the median distance from the median (Rousseeuw & Croux 1993)."""
    fine = finite(values)
    if not fine.size:
        return math.nan
    return MAD_TO_SIGMA * float(np.median(np.abs(fine - np.median(fine))))


def rolling_median(values: npt.ArrayLike, width: int) -> Values:
    """Median of each value and the ``width`` − 1 before it; at the start, of those there are. (n,) → (n,).

    Tukey, *Exploratory Data Analysis* (1977), running medians.
    """
    x = np.asarray(values, np.float64)
    head = min(width - 1, x.size)
    result = np.empty_like(x)
    for i in range(head):
        result[i] = np.median(x[: i + 1])
    if x.size > head:
        result[head:] = np.median(np.lib.stride_tricks.sliding_window_view(x, width), axis=1)
    return result


def log_scale(values: npt.ArrayLike) -> LogScale:
    """Median and σ (1.4826 · MAD) of the natural logarithm, for what varies by factors, such as gradients.

    Source: Limpert, Stahel and Abbt, "Log-normal Distributions across the Sciences", BioScience 51 (2001).
    Zeros and negative values have no logarithm and are left out, as is what is not finite.
    """
    fine = finite(values)
    logs = np.log(fine[fine > 0])
    if not logs.size:
        return LogScale(math.nan, math.nan, 0)
    return LogScale(math.exp(float(np.median(logs))), mad_sigma(logs), int(logs.size))
