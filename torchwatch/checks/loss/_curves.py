"""What the checks of the loss share: its level, its noise, its slope, and what its owner said about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Interval

Values = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

_MOST_INTERVALS = 64
_EARLY_STEPS = 10
_BLOCKS = 8
_FIRST_STEPS = 3
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_UPPER_QUARTILE = 1.1503  # of the absolute value of a standard normal variable


class Curve(NamedTuple):
    """The loss per interval, (n,) each: the first interval and the last 64, without those of no finite mean.

    ``spread`` is the standard deviation of the steps within the interval (0 where it is unknown), ``error``
    the standard error of the mean: the spread over the root of the number of steps.
    """

    first_step: Steps
    last_step: Steps
    mean: Values
    spread: Values
    error: Values


def curve(history: History) -> Curve:
    """The loss per interval, oldest first; computed once per pass."""
    return history.cached("loss-curve", lambda: _curve(history))


def _curve(history: History) -> Curve:
    every = history.intervals
    kept = list(every) if len(every) <= _MOST_INTERVALS else [every[0], *every[-_MOST_INTERVALS:]]
    kept = [i for i in kept if i.loss_mean is not None and math.isfinite(i.loss_mean)]
    spread = np.array([_spread(i) for i in kept], np.float64)
    return Curve(
        np.array([i.first_step for i in kept], np.int64),
        np.array([i.last_step for i in kept], np.int64),
        np.array([i.loss_mean for i in kept], np.float64),
        spread,
        spread / np.sqrt([max(1, i.steps) for i in kept]),
    )


def _spread(interval: Interval) -> float:
    spread = interval.loss_std
    return spread if spread is not None and math.isfinite(spread) else 0.0


def first_level(history: History) -> float | None:
    """Mean loss of the first interval; before it has closed the median of the first ten finite losses."""
    if history.intervals:
        mean = history.intervals[0].loss_mean
        if mean is not None and math.isfinite(mean):
            return mean
    early = history.first("loss", _EARLY_STEPS).values
    early = early[np.isfinite(early)]
    return float(np.median(early)) if early.size else None


def has_signs(history: History) -> bool:
    """Whether the loss was 0 or below: then ratios and logarithms of it mean nothing."""
    best = history.best("loss")
    return best is not None and best[1] <= 0


def lr_rose(history: History, step: int, intervals: int) -> bool:
    """Whether the lr was raised after warm-up within ``intervals`` intervals before ``step``, or at it."""
    rises = history.lr_rises()
    if not rises or not intervals:
        return False
    length = max((i.steps for i in history.intervals[-4:]), default=200)
    return any(step - intervals * length <= rise <= step for rise in rises)


def changes_objective(history: History, onset: int) -> bool:
    """Whether another optimizer came in at the onset: after pretraining the loss is another one."""
    layout = history.layout
    if layout is None or not layout.several_optimizers or layout.step <= _FIRST_STEPS:
        return False
    return abs(onset - layout.step) <= _FIRST_STEPS


def plays_against_itself(history: History) -> str | None:
    """Why the loss is not expected to fall: declared so, or several optimizers; None where it is."""
    for word in ("adversarial", "reinforcement"):
        if history.declared.get(word):
            return f"the run is declared {word}"
    if history.layout is not None and history.layout.several_optimizers:
        return "several optimizers train against or beside each other"
    return None


def scatter(values: Values) -> float:
    """σ of the values around their median: 1.4826 times the median absolute deviation.

    Source: Rousseeuw and Croux, "Alternatives to the median absolute deviation", JASA 88 (1993).
    """
    if not values.size:
        return math.nan
    return _MAD_TO_SIGMA * middle(np.abs(values - middle(values)))


def middle(values: Values) -> float:
    """The upper median. A sort of some hundred values takes a tenth of ``numpy.median``'s time."""
    return float(np.sort(values)[values.size // 2])


def noise(values: Values) -> float:
    """σ of the scatter around a smooth curve; NaN below 5 values.

    Each value is compared with the mean of its two neighbours, which takes a linear trend out; for
    independent noise that difference has a standard deviation of √1.5 σ. The larger one of the estimates by
    median and upper quartile is taken and enlarged by 2 ⁄ the number of differences, because few of them
    often look calmer than they are.
    """
    if values.size < 5:
        return math.nan
    bends = np.abs(values[1:-1] - (values[:-2] + values[2:]) / 2)
    typical, upper = np.quantile(bends, (0.5, 0.75))
    sigma = max(_MAD_TO_SIGMA * float(typical), float(upper) / _UPPER_QUARTILE)
    return sigma / math.sqrt(1.5) * (1 + 2 / bends.size)


def noise_at(level: float, values: Values) -> float:
    """σ as :func:`noise`, for a value of this level: in the logarithm where that exists.

    A loss falls like an exponential and scatters in proportion to its level; its logarithm is straight.
    """
    if level > 0 and values.size and values.min() > 0:
        return level * noise(np.log(values))
    return noise(values)


def step_noise(values: Values) -> float:
    """σ of the step-to-step scatter, from differences of neighbours: no slow trend is in it. NaN below 3.

    Source: Rice, "Bandwidth choice for nonparametric regression", Ann. Statist. 12 (1984), with the median
    in place of the mean.
    """
    if values.size < 3:
        return math.nan
    return _MAD_TO_SIGMA * float(np.median(np.abs(np.diff(values)))) / math.sqrt(2)


def falls(history: History, first_step: int, last_step: int) -> bool:
    """Whether the loss falls for certain between two steps: the slope of eight medians."""
    steps, values = history.series("loss")
    part = values[np.searchsorted(steps, first_step) : np.searchsorted(steps, last_step, side="right")]
    part = part[np.isfinite(part)]
    if part.size < 2 * _BLOCKS:
        return False
    medians = np.array([np.median(block) for block in np.array_split(part, _BLOCKS)])
    return slope(np.arange(_BLOCKS), medians)[2] < 0


def most_fallen(losses: Curve, level: float) -> float:
    """How far the loss can have fallen below a level at which it began, at most.

    The larger one of what the last third of the intervals lies below it, and of the steepest fall that the
    confidence interval of the slope allows. The first interval is not in the slope: it may hold a bad start.
    Where too few intervals give the slope no interval, the last third's own error takes its place.
    """
    count = losses.mean.size
    third = max(1, count // 3)
    fallen = level - float(losses.mean[-third:].mean())
    low = slope(np.arange(count - 1), losses.mean[1:])[0]
    if math.isinf(low):
        return fallen + 3 * float(np.sqrt(np.square(losses.error[-third:]).sum())) / third
    return max(fallen, -low * (count - 2))


def slope(x: npt.NDArray[np.number], y: Values, z: float = 1.96) -> tuple[float, float, float]:
    """Theil–Sen slope with its confidence interval (low, estimate, high); ±inf where too few points tell.

    Source: Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).

    Args:
        x: (n,) distinct positions.
        y: (n,) values.
        z: half width of the interval in standard normal deviations (default 1.96: 95 %).
    """
    n = y.size
    left, right = np.triu_indices(n, 1)
    if not left.size:
        return -math.inf, 0.0, math.inf
    slopes = np.sort((y[right] - y[left]) / (x[right] - x[left]))
    width = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = math.floor((slopes.size - width) / 2) - 1
    high = math.ceil((slopes.size + width) / 2)
    return (
        float(slopes[low]) if low >= 0 else -math.inf,
        float(np.median(slopes)),
        float(slopes[high]) if high < slopes.size else math.inf,
    )
