"""Metrics of classes: true against predicted class numbers ``(N,)``, confidences, calibration.

Nothing is broadcast and nothing warns; what cannot be said is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.statistics.metrics import mean, over

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al. (2017)."""

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class ByClass:
    """Counts and scores of the classes that occur among targets or predictions.

    Attributes:
        classes: their numbers (C).
        support: how often each is true.
        predicted: how often each was predicted.
        right: how often both.
        precision: NaN where never predicted.
        recall: NaN where never true.
        f1: 2·right / (support + predicted).
    """

    classes: Integers
    support: Integers
    predicted: Integers
    right: Integers
    precision: Values
    recall: Values
    f1: Values

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that are true at least once; NaN where there are none."""
        return float(mean(self.recall[self.support > 0]))

    @property
    def f1_macro(self) -> float:
        """Unweighted mean of F1 over all classes that occur; NaN where there are none."""
        return float(mean(self.f1))


def by_class(true: npt.ArrayLike, predicted: npt.ArrayLike) -> ByClass:
    """Scores per class.

    Args:
        true: class numbers (N,), at least 0.
        predicted: class numbers (N,), at least 0.

    Raises:
        ValueError: the shapes differ or are not (N,).
    """
    t, p = _pair(true, predicted)
    classes, codes = np.unique(np.concatenate([t, p]), return_inverse=True)
    t_code, p_code = codes[: t.size], codes[t.size :]
    support = np.bincount(t_code, minlength=classes.size).astype(np.int64)
    said = np.bincount(p_code, minlength=classes.size).astype(np.int64)
    right = np.bincount(t_code[t_code == p_code], minlength=classes.size).astype(np.int64)
    return ByClass(
        classes, support, said, right,
        over(right, said), over(right, support), over(2 * right, support + said),
    )  # fmt: skip


def accuracy(true: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of equal entries; NaN of nothing."""
    t, p = _pair(true, predicted)
    return float(mean(t == p))


def confusion(true: npt.ArrayLike, predicted: npt.ArrayLike, count: int) -> Integers:
    """Counts ``[true, predicted]``, (count, count).

    Raises:
        ValueError: the shapes differ, or a class is outside 0 … count − 1.
    """
    t, p = _pair(true, predicted)
    if t.size and (min(t.min(), p.min()) < 0 or max(t.max(), p.max()) >= count):
        raise ValueError(f"classes must lie within 0 … {count - 1}")
    return np.bincount(t * count + p, minlength=count * count).reshape(count, count).astype(np.int64)


def entropy(probabilities: npt.ArrayLike) -> Values:
    """Entropy along the last axis (nats); 0·log 0 is 0."""
    p = np.asarray(probabilities, np.float64)
    summed: Values = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
    return summed + 0.0


def wilson(right: npt.ArrayLike, count: npt.ArrayLike) -> tuple[Values, Values]:
    """95 % interval of a share, which stays within 0 … 1 and is wide for few (Wilson 1927).

    Args:
        right: how many (B,).
        count: of how many (B,).

    Returns:
        Lower and upper end (B,); NaN where ``count`` is 0.
    """
    n = np.asarray(count, np.float64)
    share = over(right, n)
    middle = over(share + over(_Z95**2, 2 * n), 1 + over(_Z95**2, n))
    inside = np.sqrt(over(share * (1 - share), n) + over(_Z95**2, 4 * n * n))
    half = over(_Z95 * inside, 1 + over(_Z95**2, n))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence and accuracy in bins of confidence.

    Attributes:
        edges: of the bins, 0 … 1 (B + 1,).
        count: decisions in each (B,).
        right: how many of them are right (B,).
        confidence: their mean confidence (B,); NaN in an empty bin.
        accuracy: share of right ones (B,); NaN in an empty bin.
        ece: expected calibration error; NaN without decisions.
    """

    edges: Values
    count: Integers
    right: Integers
    confidence: Values
    accuracy: Values
    ece: float


def calibration(confidence: npt.ArrayLike, right: npt.ArrayLike, bins: int = BINS) -> Calibration:
    """Bins of equal width, open below and closed above, and the expected calibration error.

    ECE is the mean over decisions of |accuracy − confidence| of their bin. Source: Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017.

    Args:
        confidence: probability of the predicted class (N,), within 0 … 1.
        right: whether the prediction is right (N,).
        bins: how many bins.

    Raises:
        ValueError: the shapes differ, or a confidence is outside 0 … 1.
    """
    c, r = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if c.shape != r.shape or c.ndim != 1:
        raise ValueError(f"confidences {c.shape} and decisions {r.shape} must both be (N,)")
    if c.size and not ((c >= 0) & (c <= 1 + 1e-6)).all():
        raise ValueError("confidences must lie within 0 … 1")
    edges = np.linspace(0, 1, bins + 1)
    place = _bin_of(c, edges)
    count = np.bincount(place, minlength=bins).astype(np.int64)
    hits = np.bincount(place[r], minlength=bins).astype(np.int64)
    summed = np.bincount(place, c, minlength=bins)
    gap = np.abs(hits - summed).sum()
    ece = float(gap / c.size) if c.size else math.nan
    return Calibration(edges, count, hits, over(summed, count), over(hits, count), ece)


def ece_by_chance(
    confidence: npt.ArrayLike, rng: np.random.Generator, draws: int = 200, bins: int = BINS
) -> float:
    """95th percentile of the ECE that these confidences would get if they were right to the letter.

    The estimate of ECE is never negative and so above 0 by chance, the more the fewer the samples. Decisions
    are drawn right with exactly the probability that their confidence states (Vaicenavicius et al. 2019).
    """
    c = np.clip(np.asarray(confidence, np.float64), 0, 1)
    if not c.size:
        return math.nan
    place = _bin_of(c, np.linspace(0, 1, bins + 1))
    summed = np.bincount(place, c, minlength=bins)
    drawn = []
    for _ in range(draws):
        hits = np.bincount(place[rng.random(c.size) < c], minlength=bins)
        drawn.append(np.abs(hits - summed).sum() / c.size)
    return float(np.quantile(drawn, 0.95))


def _bin_of(confidence: Values, edges: Values) -> Integers:
    """Bin of each confidence: open below, closed above; exactly 0 belongs to the first."""
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, edges.size - 2)


def _pair(true: npt.ArrayLike, predicted: npt.ArrayLike) -> tuple[Integers, Integers]:
    t, p = np.asarray(true), np.asarray(predicted)
    if t.shape != p.shape or t.ndim != 1:
        raise ValueError(f"true {t.shape} and predicted classes {p.shape} must both be (N,)")
    return t.astype(np.int64), p.astype(np.int64)
