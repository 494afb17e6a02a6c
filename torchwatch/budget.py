"""The overhead controller: how often to measure so that watching costs a given share of step time."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from torchwatch.calibration import PRIOR, Calibration
from torchwatch.config import WatchConfig
from torchwatch.schedule import LADDER, Plan, Schedule

_KEPT, _RECENT = 64, 16
_MOST_OF_MEDIAN = 4.0
_REMEMBERED = {"plain": 4096.0}
_REMEMBERED_MEASURED = 32.0
_WARM_UP = 3
_ENOUGH = 5
_SETTLE_STEPS = 20
_SETTLE_S = 0.25
_GRADIENTS_FREE = 0.6
_GRADIENTS_SHARE = 0.4
_SENTINEL_SHARE = 0.3
_HEAVY_SHARE = 0.2
_DENSEST_HEAVY = 10
_HYSTERESIS = 0.8
_SENTINEL_TRIAL = 10
_PER_LAYER_S = 5e-6


class Estimate(NamedTuple):
    """Seconds per step: of the training without us, and what each kind of step costs on top.

    ``factor`` is what self-timing must be multiplied with.
    """

    bare_s: float
    plain_s: float
    gradients_s: float
    sampled_s: float
    sentinel_s: float
    factor: float


class _Kind:
    """The last steps of one kind: their durations and our own time in them, both seconds."""

    def __init__(self) -> None:
        self.durations: deque[float] = deque(maxlen=_KEPT)
        self.watched: deque[float] = deque(maxlen=_RECENT)

    def __len__(self) -> int:
        return len(self.durations)

    def duration(self) -> float:
        return float(statistics.median(self.durations))

    def own(self) -> float:
        return statistics.median(self.watched) if self.watched else 0.0

    def mean_own(self) -> float:
        """The mean, so that rare steps which cost a multiple of the others count for what they cost.

        Nothing counts for more than four times the median: that was another process, or a wait.
        """
        if not self.watched:
            return 0.0
        most = _MOST_OF_MEDIAN * statistics.median(self.watched)
        return statistics.fmean(min(seconds, most) for seconds in self.watched)


class Budget:
    """Watches what watching costs and sets the rates of a schedule.

    Our own clocks under-read what we cost: the host's caches are cold after us and its dispatch waits. So the
    durations of sampled steps are compared with those beside them, and the ratio of the difference to our
    self-timing becomes the factor of ``calibration``.

    Gradients come first: every step, as long as that takes at most 60 % of the budget, else so often that it
    takes 40 %. The sentinel may take 30 %. Heavy probes get what is left, at least 20 %, and never run more
    often than every 10th step. Rates that the user forced are left alone.

    Args:
        config: ``budget`` (None: nothing is controlled) and forced rates.
        schedule: whose rates are set.
        layers: how many layers the model has, for a first guess at the sentinel's cost.
    """

    def __init__(self, config: WatchConfig, schedule: Schedule, layers: int = 0) -> None:
        self._config, self.schedule, self._layers = config, schedule, layers
        self._kinds = {name: _Kind() for name in ("plain", "gradients", "sampled", "sentinel")}
        self._recorder: dict[str, list[float]] = {name: [0.0, 0.0] for name in self._kinds}
        self._seen = self._fresh = 0
        self._busy_s = 0.0
        self._tried_sentinel = config.sentinel is not None
        self.calibration = Calibration()

    @property
    def factor(self) -> float:
        """What self-timing of measured steps is multiplied with. Any thread."""
        return self.calibration.factor.value

    # ------------------------------------------------------------------ what happened

    def step(self, plan: Plan, duration_s: float, watch_s: float) -> None:
        """A measured step has ended. Training thread."""
        self._seen += 1
        if self._seen <= _WARM_UP:
            return
        kind = kind_of(plan)
        if kind == "sampled":
            self.calibration.sampled(duration_s, watch_s)
        else:
            self.calibration.usual((duration_s,), watch_s)
        self._add(kind, (duration_s,), watch_s)

    def plain_steps(self, durations: Sequence[float], watch_s: float) -> None:
        """Steps of the fast lane have ended; ``watch_s`` is ours in all of them. Training thread."""
        if durations:
            self.calibration.usual(durations, watch_s / len(durations))
        self._add("plain", durations, watch_s)

    def recorded(self, kind: str, seconds: float, steps: int) -> None:
        """The recorder thread spent CPU time on steps of one kind; ``steps`` are those not counted before.

        What was long ago counts for less: the first steps are dear, everything is cold and they come singly.
        """
        had_s, had = self._recorder[kind]
        kept = math.exp(-steps / _REMEMBERED.get(kind, _REMEMBERED_MEASURED)) if steps else 1.0
        self._recorder[kind] = [had_s * kept + seconds, had * kept + steps]

    def _add(self, kind: str, durations: Sequence[float], watch_s: float) -> None:
        if not durations:
            return
        entry = self._kinds[kind]
        entry.durations.extend(durations)
        entry.watched.append(watch_s / len(durations))
        self._fresh += len(durations)
        self._busy_s += sum(durations)
        if self._fresh >= _SETTLE_STEPS or self._busy_s >= _SETTLE_S * max(1, self._fresh // _ENOUGH):
            self._settle()

    # ------------------------------------------------------------------ what it costs

    def estimate(self) -> Estimate | None:
        """What steps cost, None before enough of them were seen."""
        kinds = self._kinds
        usual = max(("plain", "gradients", "sentinel"), key=lambda name: len(kinds[name]))
        if len(kinds[usual]) < _ENOUGH:
            return None
        plain, gradients, sampled = (self._cost(name) for name in ("plain", "gradients", "sampled"))
        if len(kinds["sentinel"]) >= _WARM_UP:  # it measures gradients too, and may be the fresher evidence
            gradients = min(gradients, self._cost("sentinel"))
        bare = kinds[usual].duration() - kinds[usual].own() * self._factor_of(usual)
        sentinel = self._cost("sentinel") - gradients if len(kinds["sentinel"]) else 0.0
        return Estimate(
            bare_s=max(bare, 1e-7),
            plain_s=plain,
            gradients_s=max(gradients - plain, 0.0),
            sampled_s=max(sampled - gradients, 0.0),
            sentinel_s=max(sentinel, 0.0),
            factor=self.factor,
        )

    def _cost(self, name: str) -> float:
        """Seconds that a step of this kind costs, in both threads."""
        seconds, steps = self._recorder[name]
        own_s = self._kinds[name].mean_own() * self._factor_of(name)
        return own_s + (seconds / steps if steps else 0.0)

    def _factor_of(self, name: str) -> float:
        """What self-timing is multiplied with: plain steps cannot be compared with steps that cost less."""
        return PRIOR.value if name == "plain" else self.factor

    # ------------------------------------------------------------------ what follows

    def _settle(self) -> None:
        self._fresh, self._busy_s = 0, 0.0
        self.calibration.estimate()
        budget = self._config.budget
        cost = None if budget is None else self.estimate()
        if cost is None or budget is None:
            return
        schedule, allowed = self.schedule, budget * cost.bare_s
        if self._config.gradients_every is None:
            schedule.gradients_every = self._gradients_rate(cost, allowed)
        left = allowed - cost.plain_s - cost.gradients_s / schedule.gradients_every
        left -= self._sentinel(cost, allowed, left)
        if self._config.activations_every is None and len(self._kinds["sampled"]) >= _ENOUGH:
            left = max(left, _HEAVY_SHARE * allowed)
            wanted = self._rung(cost.sampled_s, left, schedule.activations_every)
            schedule.activations_every = max(wanted, _DENSEST_HEAVY)

    def _gradients_rate(self, cost: Estimate, allowed: float) -> int:
        current = self.schedule.gradients_every
        limit = _GRADIENTS_FREE * allowed * (1.0 if current == 1 else _HYSTERESIS)
        if cost.plain_s + cost.gradients_s <= limit:
            return 1
        return max(self._rung(cost.gradients_s, _GRADIENTS_SHARE * allowed, current), 2)

    def _sentinel(self, cost: Estimate, allowed: float, left: float) -> float:
        """Switch the sentinel on for a trial, or off when it costs too much; returns what it costs."""
        schedule = self.schedule
        most = min(_SENTINEL_SHARE * allowed, left)
        if not self._tried_sentinel:
            self._tried_sentinel = True
            schedule.sentinel = schedule.gradients_every == 1 and self._layers * _PER_LAYER_S <= most
        elif self._config.sentinel is None and schedule.sentinel:
            seen = len(self._kinds["sentinel"])
            if schedule.gradients_every > 1 or (seen >= _SENTINEL_TRIAL and cost.sentinel_s > most):
                schedule.sentinel = False
        return cost.sentinel_s if schedule.sentinel else 0.0

    @staticmethod
    def _rung(seconds: float, allowed: float, current: int) -> int:
        """The densest rung of the ladder that fits; a denser one than now must fit with room to spare."""
        for every in LADDER:
            if seconds / every <= allowed * (_HYSTERESIS if every < current else 1.0):
                return every
        return LADDER[-1]


def kind_of(plan: Plan) -> str:
    """Which kind of step a plan makes."""
    if plan.sampled:
        return "sampled"
    if plan.sentinel:
        return "sentinel"
    return "gradients" if plan.gradients else "plain"
