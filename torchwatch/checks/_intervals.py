"""Intervals in a row: where they began, and whether the loss did well meanwhile; for checks of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torchwatch.history import History

_NEAR_BEST = 0.05
_LEAST_FALL = 0.05


def onset(history: History, ends: npt.NDArray[np.int64], holds: npt.NDArray[np.bool_]) -> int:
    """First step of the first interval of those that hold to the end.

    Args:
        history: the records.
        ends: (n,) last steps of intervals.
        holds: (n,) whether it held in them.
    """
    fine = np.flatnonzero(~holds)
    if fine.size:
        return int(ends[fine[-1]]) + 1
    return first_step(history, int(ends[0]))


def first_step(history: History, last_step: int) -> int:
    """First step of the interval that ends with ``last_step``."""
    return next((i.first_step for i in reversed(history.intervals) if i.last_step == last_step), last_step)


def loss_is_at_its_best(history: History) -> bool:
    """Whether the last interval's loss lies within 5 % of its whole fall from the best; then nothing is lost.

    False where no loss is known, in the first interval, and where it fell by less than 5 % of its first
    level: that is no learning.
    """
    losses = history.interval_series("loss_mean").values
    if losses.size < 2 or not np.isfinite(losses).all():
        return False
    fall = losses[0] - losses.min()
    return bool(fall > _LEAST_FALL * abs(losses[0]) and losses[-1] <= losses.min() + _NEAR_BEST * fall)


def is_converged(history: History, share: float) -> bool:
    """Whether the last interval's loss is below this share of the first one's: its floor."""
    losses = history.interval_series("loss_mean").values
    return bool(share and losses.size >= 2 and losses[0] > 0 and abs(losses[-1]) < share * losses[0])


def lr_is_low(history: History, share: float) -> bool:
    """Whether the learning rate of the last interval is below this share of its maximum."""
    rates = history.interval_series("lr_max").values
    return bool(share and rates.size and rates[-1] < share * rates.max())


def after_warm_up(history: History, ends: npt.NDArray[np.int64], guard: float) -> int:
    """Index of the first interval that ends after warm-up; 0 where the guard is off."""
    return int(np.searchsorted(ends, history.warm_up_end(), side="right")) if guard else 0
