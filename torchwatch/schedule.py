"""What is measured in which step: the training thread asks, the budget and the alerts decide."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from torchwatch.config import WatchConfig

LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
"""Steps between two measurements: 1-2-5."""

_FIRST_ACTIVATIONS = 10
_EARLY = frozenset(every for every in LADDER if every > _FIRST_ACTIVATIONS)
_BURST, _BURST_EVERY = 4, 4
_ZOOM_WINDOW = 1000


class Plan(NamedTuple):
    """What is measured in one step.

    ``gradients``: gradient norms and update ratios. ``sampled``: activations, weights and the other heavy
    probes. ``rare``: the expensive statistics as well. ``sentinel``: outputs are summed in search of a NaN.
    ``profiled``: the profiler runs, and nothing heavy of ours distorts what it sees.
    """

    number: int
    gradients: bool
    sampled: bool
    rare: bool
    sentinel: bool
    profiled: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing is measured but times and what the host logs."""
        return not (self.gradients or self.sampled or self.sentinel or self.profiled)


def unmeasured(number: int) -> Plan:
    """A plan in which nothing is measured."""
    return Plan(number, gradients=False, sampled=False, rare=False, sentinel=False)


class Schedule:
    """The rates in force, and the zoom.

    Where the budget sets the rate of the heavy probes, they also run at steps 20, 50, 100, 200, 500 and so
    on: three looks per tenfold number of steps, so that a run is seen soon and a first estimate of what
    looking costs, made while everything was cold, is corrected soon. After these, and after every fourth
    other look, outputs are summed and inputs seen in the four steps that follow, for what shows in
    consecutive steps only; such a stretch replaces the look after it.

    Args:
        config: ``None`` rates are set by the budget, numbers are forced.

    Attributes:
        gradients_every: steps between two measurements of gradients, on the ladder.
        activations_every: the same for all heavy probes.
        sentinel: whether outputs are summed on every step; undecided (None), the budget turns it on, and
            without a budget it is on.
        profiling: whether the host profiles by hand: then nothing heavy of ours gets in the way.
        zoomed: steps that were measured in full because of a warning.
    """

    def __init__(self, config: WatchConfig) -> None:
        self.config = config
        self.gradients_every = config.gradients_every or 1
        self.activations_every = config.activations_every or _FIRST_ACTIVATIONS
        self.sentinel = config.budget is None if config.sentinel is None else config.sentinel
        self.profiling = False
        self.zoomed = 0
        self._requested = False
        self._zoom_left = 0
        self._zooms: deque[int] = deque()
        self._samples = 0
        self._controlled = config.budget is not None and config.activations_every is None
        self._look = False
        self._debt = self._regular = self._burst = 0

    @property
    def zoom_requested(self) -> bool:
        """Whether a warning waits for the next step that is planned."""
        return self._requested

    def request_zoom(self) -> None:
        """A warning was raised. Any thread; it takes effect at the next step that is planned."""
        self._requested = True

    def look(self, *, urgent: bool) -> bool:
        """Measure the next step that is planned in full. Training thread.

        Unless it is ``urgent`` a look takes the place of the next regular one, so that looks out of turn cost
        nothing in the long run; False where the one before has not been made up for.
        """
        if not urgent:
            if self._debt or self._look:
                return False
            self._debt += 1
        self._look = True
        return True

    def plan(self, number: int) -> Plan:
        """What to measure in step ``number``; called once per step, in order. Consumes the zoom."""
        zoomed = self._zooming(number)
        dense = number <= self.config.dense_steps
        profiled = self.profiling or self._profiled(number)
        heavy = self._heavy(number)
        sampled = (zoomed or dense or heavy) and not profiled
        light = self._burst > 0 and not sampled and not profiled
        self._burst -= light
        rare = False
        if sampled:
            rare = self._samples % self.config.rare_every == 0
            self._samples += 1
        gradients = sampled or light or (number - 1) % self.gradients_every == 0
        sentinel = light or (self.sentinel and not sampled and not profiled)
        return Plan(number, gradients, sampled, rare, sentinel, profiled)

    def _heavy(self, number: int) -> bool:
        """Whether the heavy probes are due by themselves."""
        if self._look:
            self._look = False
            return True
        every = self.activations_every
        sparse = self._controlled and every > _FIRST_ACTIVATIONS
        if sparse and number in _EARLY:
            self._burst = _BURST
            return True
        if number % every:
            return False
        if self._debt:
            self._debt -= 1
            return not self._controlled
        if sparse and not self._regular % _BURST_EVERY:
            self._burst, self._debt = _BURST, 1
        self._regular += 1
        return True

    def next_due(self, number: int) -> int:
        """The first step from ``number`` on in which something is measured; ``number`` while zooming."""
        soon = self._requested or self._zoom_left or self._look or self._burst
        if soon or number <= self.config.dense_steps or self.sentinel:
            return number
        gradients = number + (1 - number) % self.gradients_every
        due = min(gradients, number + -number % self.activations_every)
        if self._controlled and self.activations_every > _FIRST_ACTIVATIONS:
            due = min([due, *(early for early in _EARLY if early >= number)])
        every = self.config.profile_every
        if every is None:
            return due
        return number if self._profiled(number) else min(due, number + -number % every)

    def _profiled(self, number: int) -> bool:
        every = self.config.profile_every
        return every is not None and number >= every and number % every < self.config.profile_steps

    def _zooming(self, number: int) -> bool:
        while self._zooms and self._zooms[0] <= number - _ZOOM_WINDOW:
            self._zooms.popleft()
        if self._requested:
            self._requested = False
            self._zoom_left = self.config.zoom_steps
        if not self._zoom_left:
            return False
        if len(self._zooms) >= self.config.zoom_steps:
            self._zoom_left = 0
            return False
        self._zoom_left -= 1
        self._zooms.append(number)
        self.zoomed += 1
        return True
