"""Our own clocks against the clock on the wall: how much more watching costs than it says of itself."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BESIDE = 4
_FEWEST = 4
_PAIRS = 128
_ENOUGH = 5
_FLOOR = 0.05
_RANGE = (1.0, 4.0)


class Factor(NamedTuple):
    """What self-timing is multiplied with, and one standard error of it."""

    value: float
    error: float


PRIOR = Factor(1.5, 0.5)
"""Before there is evidence: caches that are cold after us, and hooks that are called outside our clocks, cost
1.4 to 2 times what we read, measured on steps with and without a watcher."""


class _Open(NamedTuple):
    """A sampled step that waits for the steps after it."""

    duration_s: float
    own_s: float
    beside: list[tuple[float, float]]


class Calibration:
    """Compares each sampled step with the steps right beside it, so that a drift of the machine cancels.

    A pair is the difference of durations D and that of self-timed seconds O, each to the median of eight
    steps that were not sampled, four before and four after. The factor is the weighted median of D/O with
    weights O: the line through the origin of least absolute deviations, which neither outliers nor pairs of
    little cost move. Its standard error is 1.2533 σ/√ΣO², σ from the median absolute deviation of the
    residuals (Bassett & Koenker 1978, for normal residuals). It is weighed against the prior by precision,
    and never below 1: watching costs at least what its clocks say.

    Of sampled steps in a row only the first is compared: the others have no usual step beside them.
    """

    def __init__(self) -> None:
        self.factor = PRIOR
        self._fresh = False
        self._before: deque[tuple[float, float]] = deque(maxlen=_BESIDE)
        self._pairs: deque[tuple[float, float]] = deque(maxlen=_PAIRS)
        self._open: _Open | None = None
        self._after_sampled = False

    def sampled(self, duration_s: float, own_s: float) -> None:
        """A sampled step has ended: how long it took, and how much of it was ours by our own clock."""
        self._settle()
        if not self._after_sampled:
            self._open = _Open(duration_s, own_s, list(self._before))
        self._after_sampled = True

    def usual(self, durations_s: Sequence[float], own_s: float) -> None:
        """Steps that are not sampled have ended, in this order; ``own_s`` is our own time in each of them."""
        self._after_sampled = False
        if self._open is not None:
            beside = self._open.beside
            beside += [(duration_s, own_s) for duration_s in durations_s[: 2 * _BESIDE - len(beside)]]
            if len(beside) >= 2 * _BESIDE:
                self._settle()
        self._before.extend((duration_s, own_s) for duration_s in durations_s[-_BESIDE:])

    def estimate(self) -> Factor:
        """The factor from all pairs so far; also kept in ``factor``, which any thread may read."""
        if self._fresh:
            self._fresh = False
            self.factor = self._fitted()
        return self.factor

    def _settle(self) -> None:
        """The open pair is complete, or has to do with what it has."""
        pair, self._open = self._open, None
        if pair is None or len(pair.beside) < _FEWEST:
            return
        beside_s = statistics.median(duration for duration, _ in pair.beside)
        own_s = pair.own_s - statistics.median(own for _, own in pair.beside)
        if own_s > 0:
            self._pairs.append((pair.duration_s - beside_s, own_s))
            self._fresh = True

    def _fitted(self) -> Factor:
        if len(self._pairs) < _ENOUGH:
            return PRIOR
        observed, own = np.array(self._pairs).T
        ratios = observed / own
        order = np.argsort(ratios)
        weights = np.cumsum(own[order])
        ratio = float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])
        residuals = np.abs(observed - ratio * own)
        spread = 1.4826 * float(np.median(residuals)) * (len(own) / (len(own) - 2)) ** 0.5
        error = 1.2533 * spread / float(np.sum(own**2)) ** 0.5
        weight, prior = 1 / max(error, _FLOOR) ** 2, 1 / PRIOR.error**2
        value = (ratio * weight + PRIOR.value * prior) / (weight + prior)
        return Factor(min(max(value, _RANGE[0]), _RANGE[1]), (weight + prior) ** -0.5)
