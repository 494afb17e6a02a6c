"""How rough the loss is from step to step within the last interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchwatch.check import NotReady
from torchwatch.checks.loss._curves import Curve, curve, has_signs
from torchwatch.statistics import step_noise

if TYPE_CHECKING:
    from torchwatch.history import History

_LEAST_STEPS = 10


class Roughness(NamedTuple):
    """``sigma`` of the steps of the last interval, any slow trend taken out, and the loss per interval."""

    sigma: float
    losses: Curve

    @property
    def mean(self) -> float:
        """Mean loss of the last interval."""
        return float(self.losses.mean[-1])

    @property
    def first(self) -> float:
        """Mean loss of the first interval."""
        return float(self.losses.mean[0])

    @property
    def since(self) -> int:
        """First step of the last interval."""
        return int(self.losses.first_step[-1])


def roughness(history: History, *, warm_up: bool) -> Roughness | NotReady | None:
    """The last interval's; None where the loss can be 0 or negative: then it has no level to compare with.

    ``warm_up`` leaves out the first interval and warm-up.
    """
    losses = curve(history)
    if not losses.mean.size:
        return NotReady("no interval with a loss yet")
    first_step, last_step = int(losses.first_step[-1]), int(losses.last_step[-1])
    if warm_up and (losses.mean.size < 2 or first_step <= history.warm_up_end()):
        return NotReady("needs an interval after the first and after warm-up")
    steps, values = history.series("loss")
    inside = values[np.searchsorted(steps, first_step) : np.searchsorted(steps, last_step, side="right")]
    inside = inside[np.isfinite(inside)]
    if inside.size < _LEAST_STEPS:
        return NotReady(f"needs {_LEAST_STEPS} steps with a loss in an interval, {inside.size} seen")
    if losses.mean[-1] <= 0 or has_signs(history):
        return None
    return Roughness(history.cached("loss-roughness", lambda: step_noise(inside)), losses)
