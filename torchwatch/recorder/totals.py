"""What a run amounts to so far, and the end record that says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from torchwatch.check import Severity
from torchwatch.codec import Values
from torchwatch.records import Alert, End, Step, Steps


class Totals:
    """Sums over the steps of a run; times in seconds.

    Attributes:
        step: number of the last step.
        step_s: when it ended, None before the first.
        steps: how many there were.
        epochs: how many ended.
        without_loss: steps in a row, up to now, in which no loss was seen.
    """

    def __init__(self) -> None:
        self.step = self.steps = self.epochs = 0
        self.step_s: float | None = None
        self._samples: int | None = 0
        self.without_loss = 0

    def add(self, step: Step) -> None:
        """Take in a step."""
        self.step, self.step_s = step.step, step.time_s
        self.steps += 1
        if self._samples is not None:
            self._samples = None if step.samples is None else self._samples + step.samples
        self.without_loss = self.without_loss + 1 if step.loss is None else 0

    def add_all(self, line: Steps) -> None:
        """Take in a whole line: the same as its steps one by one."""
        self.step = int(line.step[-1])
        self.step_s = next(iter(_known(line.time_s)[-1:].tolist()), 0.0)
        count = len(line.step)
        self.steps += count
        known = _known(line.samples)
        if self._samples is not None:
            self._samples = self._samples + int(known.sum()) if len(known) == count else None
        losses = [None] * count if line.loss is None else line.loss
        last = next((at for at in range(count - 1, -1, -1) if losses[at] is not None), None)
        self.without_loss = self.without_loss + count if last is None else count - 1 - last

    def since_step_s(self, now: float) -> float | None:
        """Time since the last step ended."""
        return None if self.step_s is None else round(max(now - self.step_s, 0.0), 6)

    def end(self, alerts: Iterable[Alert], health_score: int, **told: Any) -> End:
        """The end record; ``told`` are its other fields. A run without steps has no health score."""
        return End(
            step=self.step,
            steps=self.steps,
            epochs=self.epochs,
            samples=self._samples if self.steps else None,
            health_score=health_score if self.steps else None,
            issues=_at_worst(alerts),
            **told,
        )


def _known(values: Any) -> Values:
    if isinstance(values, np.ndarray):
        return values
    return np.array([v for v in values or () if v is not None], np.float64)


def _at_worst(alerts: Iterable[Alert]) -> dict[str, int]:
    """Checks per severity, each at its worst."""
    worst: dict[str, Severity] = {}
    for alert in alerts:
        severity = Severity[alert.severity.upper()]
        worst[alert.check] = max(severity, worst.get(alert.check, severity))
    return {s.word: sum(w is s for w in worst.values()) for s in Severity}
