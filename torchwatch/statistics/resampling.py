"""Intervals by drawing samples again, and probabilities by shuffling labels.

Samples of one unit (a subject, a site) are drawn together, because they are no independent evidence: without
that, intervals come out too narrow by far.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from torchwatch.statistics.metrics import over

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DRAWS = 1000


def weights(units: Integers, rng: np.random.Generator, draws: int = DRAWS) -> Values:
    """How often each sample is drawn in each draw of the bootstrap (Efron 1979), (D, N).

    Args:
        units: unit of each sample, numbers from 0 (N,).
        rng: chance.
        draws: how many; fewer, but at least 200, where they would fill more than 160 MB.
    """
    draws = min(draws, max(200, 20_000_000 // max(1, units.size)))
    count = int(units.max()) + 1 if units.size else 0
    if not count:
        return np.empty((draws, 0))
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    return drawn[:, units]


def interval(drawn: Values) -> tuple[Values, Values]:
    """The 2.5th and 97.5th percentile over the first axis; NaN where fewer than 9 of 10 draws are finite."""
    finite = np.isfinite(drawn)
    enough = finite.mean(0) >= 0.9
    filled = np.where(finite | ~enough, drawn, np.nanmedian(np.where(enough, drawn, 0.0), axis=0))
    low, high = np.percentile(np.where(enough, filled, 0.0), [2.5, 97.5], axis=0)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def mean_interval(values: Values, drawn: Values) -> tuple[float, float]:
    """Interval of the mean of ``values`` (N,) under the draws (D, N)."""
    low, high = interval(over(drawn @ values, drawn.sum(1)))
    return float(low), float(high)


def relation_intervals(
    predictions: Values, targets: Values, drawn: Values
) -> tuple[tuple[Values, Values], tuple[Values, Values]]:
    """Intervals of Pearson's r and of the calibration slope, per output.

    Args:
        predictions: finite, (N, K).
        targets: finite, (N, K).
        drawn: of :func:`weights`, (D, N).

    Returns:
        (low, high) of r and (low, high) of the slope, each (K,); NaN where a side is constant.
    """
    if not len(predictions):
        nothing = np.full(predictions.shape[1], np.nan)
        return (nothing, nothing), (nothing, nothing)
    total = drawn.sum(1, keepdims=True)
    p, y = predictions - predictions.mean(0), targets - targets.mean(0)
    p_mean, y_mean = over(drawn @ p, total), over(drawn @ y, total)
    p_var = _variance(over(drawn @ (p * p), total), p_mean, p)
    y_var = _variance(over(drawn @ (y * y), total), y_mean, y)
    both = over(drawn @ (p * y), total) - p_mean * y_mean
    r = np.clip(over(both, np.sqrt(p_var * y_var)), -1, 1)
    return interval(r), interval(over(both, p_var))


def _variance(squares: Values, means: Values, values: Values) -> Values:
    """Never below 0; a draw that is constant but for rounding has none."""
    variance = squares - means**2
    least = 1e-12 * (values * values).mean(0)
    return np.where(variance > least, variance, 0.0)


def max_t(
    values: Values, labels: Integers, rng: np.random.Generator, units: Integers, draws: int = DRAWS
) -> Values:
    """For each label, how likely the labels' largest excess is at least as large as its own by chance.

    The excess of a label is its mean less the overall mean in units of its standard error. Labels are
    shuffled, and each is compared with the largest excess of all labels, which corrects for their number.
    Source: Westfall & Young, "Resampling-Based Multiple Testing", 1993.

    Args:
        values: (N,).
        labels: numbers from 0 (N,); all of a unit's samples are shuffled as one where they share a label.
        rng: chance.
        units: unit of each sample, numbers from 0 (N,).
        draws: how many shuffles.

    Returns:
        p of each label (L,), at least 1 / (draws + 1).
    """
    count = int(labels.max()) + 1
    spread = float(values.std())
    if spread == 0 or count < 2:
        return np.ones(count)
    centred = (values - values.mean()) / spread
    shuffled = shuffler(labels, units)

    def excess(of: Integers) -> Values:
        sizes = np.bincount(of, minlength=count)
        return np.bincount(of, centred, minlength=count) / np.sqrt(np.maximum(sizes, 1))

    observed = excess(labels)
    beyond = np.zeros(count)
    for _ in range(draws):
        beyond += excess(shuffled(rng)).max() >= observed - 1e-12
    return (1 + beyond) / (draws + 1)


def shuffler(labels: Integers, units: Integers) -> Callable[[np.random.Generator], Integers]:
    """Shuffles labels: of whole units where every unit has one label, else of single samples."""
    first = np.zeros(int(units.max()) + 1, np.int64)
    first[units] = labels
    if (first[units] == labels).all() and first.size < labels.size:
        return lambda rng: rng.permutation(first)[units]
    return lambda rng: rng.permutation(labels)


def between_p(values: Values, labels: Integers, rng: np.random.Generator, draws: int = DRAWS) -> float:
    """How likely shuffled labels spread the groups' means as much as these do (one-way permutation test).

    Args:
        values: (N,).
        labels: numbers from 0 (N,).
        rng: chance.
        draws: how many shuffles.

    Returns:
        At least 1 / (draws + 1); 1 where nothing varies or there is one group.
    """
    size = np.bincount(labels)
    if (size > 0).sum() < 2 or np.ptp(values) == 0:
        return 1.0
    centred = values - values.mean()

    def spread(of: Integers) -> float:
        sums = np.bincount(of, centred, minlength=size.size)
        return float((sums**2 / np.maximum(size, 1)).sum())

    observed = spread(labels) * (1 - 1e-9)
    beyond = sum(spread(rng.permutation(labels)) >= observed for _ in range(draws))
    return (1 + beyond) / (draws + 1)
