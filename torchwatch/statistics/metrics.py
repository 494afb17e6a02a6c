"""Metrics of numbers: predictions against targets, per output, never broadcast.

Every function takes predictions and targets of one shape, ``(N,)`` or ``(N, K)``, and reduces the first
axis: the answer is a 0-d array or ``(K,)``. What cannot be said (a constant side, fewer than 2 samples) is
NaN; a NaN on either side makes that output's answer NaN. Nothing warns.

Raises:
    ValueError: the shapes differ, or are not those above. ``(N,)`` against ``(N, 1)`` is refused too: by
        broadcasting it would compare every prediction with every target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.statistics.ranks import ranks

Values = npt.NDArray[np.float64]


def pair(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Values, Values]:
    """Both as float64, of one shape ``(N,)`` or ``(N, K)``."""
    p, y = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if p.shape != y.shape:
        raise ValueError(f"predictions {p.shape} and targets {y.shape} differ in shape")
    if p.ndim not in (1, 2):
        raise ValueError(f"predictions and targets must be (N,) or (N, K), not {p.shape}")
    return p, y


def mean(values: npt.ArrayLike) -> Values:
    """Mean over the first axis; NaN of nothing."""
    x = np.asarray(values, np.float64)
    return x.mean(0) if len(x) else np.full(x.shape[1:], np.nan)


def std(values: npt.ArrayLike) -> Values:
    """Population standard deviation over the first axis; exactly 0 for a constant, NaN of nothing."""
    x = np.asarray(values, np.float64)
    if not len(x):
        return np.full(x.shape[1:], np.nan)
    spread: Values = np.where(np.ptp(x, 0) == 0, 0.0, x.std(0))
    return spread


def rmse(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Root mean squared error, in the targets' unit."""
    p, y = pair(predictions, targets)
    return np.sqrt(mean((p - y) ** 2))


def mae(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Mean absolute error, in the targets' unit."""
    p, y = pair(predictions, targets)
    return mean(np.abs(p - y))


def nrmse(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """RMSE by the targets' standard deviation: 1 for the mean of these targets; NaN for constant targets."""
    p, y = pair(predictions, targets)
    return over(rmse(p, y), std(y))


def r2(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Coefficient of determination, 1 − NRMSE²; NaN for constant targets."""
    return 1 - nrmse(predictions, targets) ** 2


def std_ratio(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Spread of the predictions by that of the targets; NaN for constant targets.

    The predictor with the least squared error, E[y | x], has a spread ratio equal to its correlation with the
    targets: a small ratio alone is no fault.
    """
    p, y = pair(predictions, targets)
    return over(std(p), std(y))


def pearson(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Pearson's correlation r; NaN where a side is constant."""
    p, y = pair(predictions, targets)
    p_hat, y_hat = _standardised(p), _standardised(y)
    return np.clip(mean(p_hat * y_hat), -1, 1)


def calibration_slope(predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Values:
    """Slope of the regression of targets on predictions, b = r·σy/σp (Cox 1958): 1 is calibrated.

    Above 1 the predictions vary too little, below 1 too much. NaN for constant predictions; 0 for constant
    targets.
    """
    p, y = pair(predictions, targets)
    p_hat = _standardised(p)
    return over(mean(p_hat * (y - mean(y))), std(p))


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores above a negative (Mann & Whitney 1947).

    Args:
        scores: (N,), finite.
        positive: booleans (N,).

    Returns:
        Within 0 … 1, ties counted half; NaN where all are positive or none is.
    """
    s, is_positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if s.shape != is_positive.shape or s.ndim != 1:
        raise ValueError(f"scores {s.shape} and labels {is_positive.shape} must both be (N,)")
    positives = int(is_positive.sum())
    negatives = s.size - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(ranks(s)[is_positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def over(above: Any, below: Any) -> Values:
    """``above / below``, NaN where ``below`` is 0."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    ratio: Values = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=ratio, where=b != 0)
    return ratio


def _standardised(x: Values) -> Values:
    """Mean 0 and standard deviation 1 over the first axis; NaN for a constant."""
    return over(x - mean(x), std(x)) if len(x) else x
