"""What else changed when an issue began."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Cause
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History

_NEAR_STEPS = 20
_FACTOR = 2.0
_OPTIMISATION = frozenset({Cause.PARAMETER, Cause.ACTIVATION, Cause.GRADIENT, Cause.LOSS})


def learning_rate_rise(history: History, cause: Cause, since_step: int) -> str:
    """A rise of the learning rate to twice or more in the 20 steps before an onset, in words; "" for none."""
    if cause not in _OPTIMISATION:
        return ""
    rises = [s for s in history.lr_rises() if since_step - _NEAR_STEPS <= s <= since_step]
    if not rises:
        return ""
    steps, rates = history.series("lr")
    place = int(np.searchsorted(steps, rises[0]))
    now = int(np.searchsorted(steps, since_step, side="right")) - 1
    if place == 0 or not rates[now] >= _FACTOR * rates[place - 1]:
        return ""
    before, after = number(float(rates[place - 1])), number(float(rates[now]))
    return f"the learning rate, which rose from {before} to {after} at step {rises[0]}"
