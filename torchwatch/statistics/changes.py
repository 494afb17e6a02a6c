"""Where the level of a series changed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics._values import finite
from torchwatch.statistics.trends import average_ranks

_LEAST = 4


class Change(NamedTuple):
    """The likeliest change of level.

    ``at`` is the place of the new level's first value among the finite ones, ``k`` Pettitt's statistic, ``p``
    the probability of so large a one without a change; ``before`` and ``after`` are the medians on both
    sides.
    """

    at: int
    k: float
    p: float
    before: float
    after: float


def pettitt(values: npt.ArrayLike) -> Change:
    """Pettitt's rank test for a change at an unknown place.

    Pettitt, "A Non-Parametric Approach to the Change-Point Problem", Applied Statistics 28 (1979): the
    largest Mann–Whitney statistic over all places, with his approximation p = 2·exp(−6K² ⁄ (n³ + n²)). It
    takes the values as independent: a steady trend counts as a change as well, and so may a slow drift.

    Args:
        values: (n,) numbers in order; non-finite ones are left out.

    Returns:
        The change; place 0, p 1 and medians of NaN for fewer than 4 finite values.
    """
    y = finite(values)
    n = y.size
    if n < _LEAST:
        return Change(0, 0.0, 1.0, math.nan, math.nan)
    u = 2 * np.cumsum(average_ranks(y))[:-1] - np.arange(1, n) * (n + 1)
    place = int(np.abs(u).argmax())
    k = abs(float(u[place]))
    p = min(1.0, 2 * math.exp(-6 * k * k / (n**3 + n**2)))
    return Change(place + 1, k, p, float(np.median(y[: place + 1])), float(np.median(y[place + 1 :])))
