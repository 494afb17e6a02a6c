"""The training loss between evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torchwatch.checks.loss._curves import Steps, Values
    from torchwatch.history import History


def train_levels(history: History, evals: Steps) -> Values:
    """Mean training loss between each evaluation and the one before; NaN where nothing is known."""
    steps, values = history.series("loss")
    old_steps, old_values = history.interval_series("loss_mean")
    result = np.full(evals.size, np.nan)
    low = 0
    for i, high in enumerate(evals):
        exact = steps.size > 0 and low + 1 >= steps[0]
        part = (
            _between(steps, values, low, int(high))
            if exact
            else _between(old_steps, old_values, low, int(high))
        )
        if part.size:
            result[i] = part.mean()
        low = int(high)
    return result


def _between(steps: Steps, values: Values, low: int, high: int) -> Values:
    part = values[np.searchsorted(steps, low, side="right") : np.searchsorted(steps, high, side="right")]
    return part[np.isfinite(part)]
