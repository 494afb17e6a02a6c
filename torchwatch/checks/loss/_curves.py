"""What the checks of the loss share: its level, its slope, and what its owner said about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.statistics import slope_bounds

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Interval

Values = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

_MOST_INTERVALS = 64
_EARLY_STEPS = 10
_BLOCKS = 8
_AT_MOST = 1.645  # 95 % of a normal distribution lie below so many σ
_FIRST_STEPS = 3


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
    length = max((i.length for i in history.intervals[-4:]), default=200)
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


def falls(history: History, first_step: int, last_step: int) -> bool:
    """Whether the loss falls for certain between two steps: the slope of eight medians."""
    steps, values = history.series("loss")
    part = values[np.searchsorted(steps, first_step) : np.searchsorted(steps, last_step, side="right")]
    part = part[np.isfinite(part)]
    if part.size < 2 * _BLOCKS:
        return False
    medians = np.array([np.median(block) for block in np.array_split(part, _BLOCKS)])
    return slope_bounds(np.arange(_BLOCKS), medians)[2] < 0


def most_fallen(losses: Curve, level: float) -> float:
    """How far the loss can have fallen below a level at which it began, at most.

    The largest one of: what the last third of the intervals lies below it; what it lies below the first third
    at most (95 %), because the first interval alone may be low by luck; and the steepest fall that the
    confidence interval of the slope allows. A bad start is no fall: means far above the level are
    cut, and the first interval is not in the slope. Where too few intervals give the slope no interval, the
    last third's own error takes its place.
    """
    count = losses.mean.size
    third = max(1, count // 3)
    last = float(losses.mean[-third:].mean())
    began = np.minimum(losses.mean[:third], level + 3 * losses.error[:third])
    errors = np.concatenate([losses.error[:third], losses.error[-third:]])
    luck = float(np.sqrt(np.square(errors).sum())) / third
    fallen = max(level - last, float(began.mean()) - last + _AT_MOST * luck)
    low = slope_bounds(np.arange(count - 1), losses.mean[1:])[0]
    if math.isinf(low):
        return fallen + 3 * float(np.sqrt(np.square(losses.error[-third:]).sum())) / third
    return max(fallen, -low * (count - 2))
