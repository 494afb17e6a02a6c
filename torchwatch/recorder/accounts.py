"""What watching costs, by our own clocks: of an interval, of the run, and of its start."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchwatch.calibration import PRIOR, Factor
from torchwatch.intervals import tidy
from torchwatch.records import Step, Steps


@dataclass(slots=True)
class _Sums:
    """Seconds: of steps, of watching in the training thread (plain steps apart), of the recorder."""

    busy: float = 0.0
    plain: float = 0.0
    measured: float = 0.0
    recorder: float = 0.0

    def add(self, other: _Sums) -> None:
        self.busy += other.busy
        self.plain += other.plain
        self.measured += other.measured
        self.recorder += other.recorder

    def watching(self, factor: Factor) -> float:
        """What it cost; self-timing of plain steps cannot be compared with anything and keeps the prior."""
        return self.plain * PRIOR.value + self.measured * factor.value + self.recorder

    def error(self, factor: Factor) -> float:
        """One standard error of that."""
        return math.hypot(self.plain * PRIOR.error, self.measured * factor.error)


class Account:
    """Adds up what watching costs. All of it runs in the recorder thread.

    The first steps are measured in full, and much happens for the first time in them: what they cost is told
    apart, in seconds, and is no part of a share. Work of the recorder that goes with time and not with steps
    (reading memory, the machine) counts by the part of the time in which the loop trained: in the pause of an
    evaluation it holds up no step.

    Args:
        start_steps: how many steps belong to the start (default 10).
        cpu: CPU time of this thread, seconds.
    """

    def __init__(self, start_steps: int = 10, cpu: Callable[[], float] = time.thread_time) -> None:
        self._start_steps, self._cpu = start_steps, cpu
        self._start, self._now, self._run = _Sums(), _Sums(), _Sums()
        self._seen_s = self._timely_s = 0.0

    def took(self, pieces: list[Step | Steps]) -> None:
        """The recorder is done with these steps; a :class:`Steps` among them holds plain ones only."""
        steps = starting = 0
        for piece in pieces:
            numbers = piece.step if isinstance(piece, Steps) else [piece.step]
            early = sum(number <= self._start_steps for number in numbers) if self._starting(piece) else 0
            steps, starting = steps + len(numbers), starting + early
            self._add(piece, early / max(len(numbers), 1))
        spent = self._spent()
        part = starting / steps if steps else 0.0
        self._start.recorder += spent * part
        self._now.recorder += spent * (1 - part)

    def timely(self, seconds: float, once: float = 0.0) -> None:
        """CPU time that went with time, just now; ``once`` of it will not come again."""
        self._seen_s += seconds
        self._timely_s += seconds - once
        self._start.recorder += once

    def close(self, duration_s: float, factor: Factor) -> dict[str, Any]:
        """An interval closes after so many seconds of wall time: its fields of :class:`Interval`."""
        now, self._now = self._now, _Sums()
        now.recorder += self._spent()
        training = min(now.busy / duration_s, 1.0) if duration_s > 0 else 1.0
        now.recorder += self._timely_s * training
        self._timely_s = 0.0
        self._run.add(now)
        return _told(now, factor)

    def end(self, factor: Factor) -> dict[str, Any]:
        """Fields of :class:`End`, once all intervals are closed."""
        start_s = self._start.watching(factor)
        return _told(self._run, factor) | {"watch_start_s": tidy(start_s) if start_s else None}

    def _starting(self, piece: Step | Steps) -> bool:
        first = piece.step[0] if isinstance(piece, Steps) else piece.step
        return first <= self._start_steps

    def _add(self, piece: Step | Steps, early: float) -> None:
        busy, watch = _total(piece.step_time_s), _total(piece.watch_time_s)
        for sums, part in ((self._start, early), (self._now, 1 - early)):
            sums.busy += busy * part
            if isinstance(piece, Steps):
                sums.plain += watch * part
            else:
                sums.measured += watch * part

    def _spent(self) -> float:
        """CPU time since this was asked before, less what was told apart."""
        now = self._cpu()
        spent, self._seen_s = now - self._seen_s, now
        return max(spent, 0.0)


def _told(sums: _Sums, factor: Factor) -> dict[str, Any]:
    if sums.busy <= 0:
        return {"watch_share": None, "watch_share_error": None}
    share, error = sums.watching(factor) / sums.busy, sums.error(factor) / sums.busy
    return {"watch_share": tidy(share), "watch_share_error": tidy(float(f"{error:.3g}"))}


def _total(values: Any) -> float:
    if isinstance(values, np.ndarray):
        return float(values.sum())
    if isinstance(values, list):
        return float(sum(value for value in values if value is not None))
    return values or 0.0
