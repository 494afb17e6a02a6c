"""Honest intervals of an importance: over samples, over draws, and over the donors of a permutation.

A permutation gives sample i the channel of another sample k. Each difference of errors then belongs to two
samples, and each sample takes part as the one that is changed and as the one that is taken from. Differences
that share a sample are not independent; the variance of their mean adds up the covariances of all pairs that
share one (Aronow, Samii & Assenova, "Cluster-Robust Variance Estimation for Dyadic Data", Political Analysis
23, 2015): with the sum s_i of the residuals in which sample i has a part, and the residuals e themselves,
Var = (Σ s_i² − Σ e²) / n², n residuals in all. It holds for any number of draws, one included.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from torchwatch.statistics import t_tail

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


def crossed(differences: Floats, donors: Integers) -> tuple[float, float]:
    """Mean and its standard error where samples were exchanged.

    Never smaller than if all differences were independent of each other.

    Args:
        differences: error with the fill less error without it (draws, N).
        donors: which sample each got its fill from (draws, N); a permutation in each row.

    Returns:
        Mean and standard error; NaN where there are fewer than two samples.
    """
    count = differences.shape[1]
    if count < 2:
        return float(differences.mean()), float("nan")
    mean = differences.mean()
    residuals = differences - mean
    shares = residuals.sum(0)
    for residual, donor in zip(residuals, donors, strict=True):
        shares[donor] += residual
    alone = float((residuals**2).sum())
    joined = max(float((shares**2).sum()) - alone, alone)
    variance = joined / differences.size**2 * count / (count - 1)
    return float(mean), float(np.sqrt(variance))


def paired(differences: Floats) -> tuple[float, float]:
    """Mean and its standard error over samples, each sample's draws averaged.

    Args:
        differences: error with the fill less error without it (draws, N).
    """
    each = differences.mean(0)
    if each.size < 2:
        return float(each.mean()), float("nan")
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(each.size))


@cache
def t_quantile(tail: float, degrees: float) -> float:
    """The t with P(T > t) = ``tail``, for Student's distribution; by bisection.

    Args:
        tail: below 0.5.
        degrees: degrees of freedom.
    """
    low, high = 0.0, 1.0
    while t_tail(high, degrees) > tail:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, degrees) > tail else (low, middle)
    return (low + high) / 2
