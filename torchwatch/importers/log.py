"""A log of somebody else's training, whatever its format: points in the order of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

Metrics = dict[str, float]


@dataclass(slots=True)
class Point:
    """What a log says about one step.

    ``step`` as the log counts it, ``epoch`` from 0, ``time_s`` since the first point. ``evals`` are metrics
    of an evaluation, their names beginning with ``val_``, ``eval_`` or ``test_``.
    """

    step: int
    epoch: int | None = None
    time_s: float | None = None
    loss: float | None = None
    lr: list[float] | None = None
    grad_norm: float | None = None
    skipped: bool | None = None
    metrics: Metrics = field(default_factory=dict)
    evals: Metrics = field(default_factory=dict)


@dataclass(slots=True)
class Log:
    """A log that was read.

    Attributes:
        format: what wrote it, in words.
        unit: what a step number counts: ``step``, ``epoch`` or ``row``.
        points: in the order of steps, one per step.
        notes: what the reading had to decide, in sentences.
        finished: whether the log says that the training came to its end.
        parameters: number of the model's parameters, 0 where the log does not say.
        declared: what the log shows that a user would have declared (``WatchConfig.declare``).
        planned_steps: how many steps the training was to have.
        hyperparameters: what else the log says about the run.
    """

    format: str
    unit: str
    points: list[Point]
    notes: list[str] = field(default_factory=list)
    finished: bool = False
    parameters: int = 0
    declared: dict[str, Any] = field(default_factory=dict)
    planned_steps: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


class Points:
    """Collects points from rows as they stand in the file.

    Rows of one step are joined (sparse rows). A row that logs the training loss of a step again begins anew
    from there: everything from that step on is dropped, because a resumed training replaces what it repeats,
    and because only the last of several runs in one file can be judged. An evaluation that follows another
    at the same step, or the next one, with no training between is a repetition (a ``validate()`` at the end),
    and the first one counts.
    """

    def __init__(self) -> None:
        self._points: dict[int, Point] = {}
        self._last: int | None = None
        self._evaluated: dict[str, int] = {}
        self._epoch: int | None = None
        self._dropped: list[tuple[int, int, bool]] = []
        self._repeated = 0

    def at(self, step: int, epoch: int | None = None, time_s: float | None = None) -> Point:
        """The point of a step, a new one where there is none."""
        point = self._points.setdefault(step, Point(step))
        self._epoch = self._epoch if epoch is None else epoch
        point.epoch = self._epoch if point.epoch is None else point.epoch
        point.time_s = time_s if point.time_s is None else point.time_s
        return point

    def train(self, step: int, loss: float, epoch: int | None = None, time_s: float | None = None) -> Point:
        """A row with the training loss."""
        if self._last is not None and step <= self._last:
            self._begin_anew(step)
        self._last = step
        self._evaluated.clear()
        if epoch is not None and step in self._points:
            self._points[step].epoch = epoch
        point = self.at(step, epoch, time_s)
        point.loss = loss
        return point

    def evaluate(
        self, step: int, metrics: Metrics, epoch: int | None = None, time_s: float | None = None
    ) -> None:
        """A row with metrics of an evaluation."""
        fresh = {n: v for n, v in metrics.items() if abs(self._evaluated.get(n, step - 2) - step) > 1}
        self._repeated += len(fresh) < len(metrics)
        if fresh:
            self.at(step, epoch, time_s).evals.update(fresh)
            self._evaluated |= dict.fromkeys(fresh, step)

    def sorted(self) -> list[Point]:
        """All points in the order of steps, times from the first one where they never go back."""
        points = [self._points[step] for step in sorted(self._points)]
        known = [p.time_s for p in points if p.time_s is not None and math.isfinite(p.time_s)]
        usable = known == sorted(known)
        start = known[0] if known and known[0] > _A_DATE_S else 0.0
        for point in points:
            timed = usable and point.time_s is not None and math.isfinite(point.time_s)
            point.time_s = point.time_s - start if timed and point.time_s is not None else None
        return points

    def notes(self) -> list[str]:
        """What was dropped, in sentences."""
        said = []
        for step, count, whole in self._dropped[:3]:
            lines = f"{count} earlier line{'s' * (count != 1)}"
            said.append(
                f"The log begins again at {step}: another run in the same file, {lines} left out."
                if whole
                else f"The log goes back to {step}, as after a resume: {lines} from there on left out."
            )
        if len(self._dropped) > 3:
            said.append(f"The log goes back {len(self._dropped) - 3} more times.")
        if self._repeated:
            said.append("An evaluation that was repeated at once counts once.")
        return said

    def _begin_anew(self, step: int) -> None:
        gone = [s for s in self._points if s >= step]
        count = sum(self._points[s].loss is not None for s in gone)
        self._dropped.append(
            (step, count, not any(p.loss is not None for s, p in self._points.items() if s < step))
        )
        for s in gone:
            del self._points[s]
        self._epoch = None


_A_DATE_S = 1e8
"""Times beyond three years (seconds) are dates, not durations."""
