"""Steps summed up: when an interval closes and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from torchwatch.records import Epoch, Interval, Step


class IntervalBuilder:
    """Collects steps and closes intervals and epochs.

    Args:
        interval_steps: an interval closes after this many steps (default 200).
    """

    def __init__(self, interval_steps: int = 200) -> None:
        self.interval_steps = interval_steps
        self._steps: list[Step] = []
        self._index = 0
        self._opened_s = 0.0
        self._epoch: list[Interval] = []
        self._epoch_opened_s = 0.0
        self._losses = _Sum()

    @property
    def room(self) -> int:
        """Steps until the interval is full."""
        return self.interval_steps - len(self._steps)

    @property
    def empty(self) -> bool:
        """Whether no step was added since the last interval."""
        return not self._steps

    def add(self, step: Step) -> None:
        """Take in a step, without its columns."""
        self._steps.append(step)
        if step.loss is not None:
            self._losses.add(step.loss)

    def close(self, closed_by: str, time_s: float, **measured: float | str | None) -> Interval:
        """The interval of the steps since the last one; ``measured`` fills fields that steps do not have."""
        steps, self._steps = self._steps, []
        busy = _total(s.step_time_s for s in steps)
        wait = _total(s.wait_time_s for s in steps)
        samples = _total(s.samples for s in steps)
        losses = _values(s.loss for s in steps)
        watched = _total(s.watch_time_s for s in steps) or 0.0
        recorder_s = measured.pop("recorder_s", None)
        interval = Interval(
            index=self._index,
            first_step=steps[0].step,
            last_step=steps[-1].step,
            steps=len(steps),
            epoch=steps[-1].epoch,
            time_s=time_s,
            closed_by=closed_by,
            duration_s=tidy(time_s - self._opened_s) or 0.0,
            busy_s=tidy(busy),
            loss_mean=_reduce(np.mean, losses),
            loss_std=_reduce(np.std, losses),
            loss_min=_reduce(np.min, losses),
            loss_max=_reduce(np.max, losses),
            lr_max=max((max(s.lr) for s in steps if s.lr), default=None),
            grad_norm_median=_reduce(np.median, _values(s.grad_norm for s in steps)),
            update_ratio_median=_reduce(np.median, _values(s.update_ratio for s in steps)),
            samples=None if samples is None else int(samples),
            steps_per_s=_rate(len(steps), busy),
            samples_per_s=_rate(samples, busy),
            step_time_median_s=_reduce(np.median, _values(s.step_time_s for s in steps)),
            wait_share=_rate(wait, busy),
            watch_share=_rate(watched + float(recorder_s or 0.0), busy),
            **measured,  # type: ignore[arg-type]
        )
        self._index += 1
        self._opened_s = time_s
        self._epoch.append(interval)
        return interval

    def close_epoch(self, epoch: int, step: int, time_s: float, metrics: dict[str, float | None]) -> Epoch:
        """The epoch of the intervals since the last one."""
        intervals, self._epoch = self._epoch, []
        busy = _total(i.busy_s for i in intervals)
        samples = _total(i.samples for i in intervals)
        waited = _total(
            None if i.wait_share is None or i.busy_s is None else i.wait_share * i.busy_s for i in intervals
        )
        record = Epoch(
            epoch=epoch,
            step=step,
            steps=sum(i.steps for i in intervals),
            time_s=time_s,
            duration_s=tidy(time_s - self._epoch_opened_s) or 0.0,
            loss_mean=self._losses.mean(),
            samples=None if samples is None else int(samples),
            samples_per_s=_rate(samples, busy),
            wait_share=_rate(waited, busy),
            metrics=metrics,
        )
        self._epoch_opened_s = time_s
        self._losses = _Sum()
        return record


class _Sum:
    """A running mean."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._total += value
        self._count += 1

    def mean(self) -> float | None:
        return tidy(self._total / self._count) if self._count else None


def tidy(value: float | None) -> float | None:
    """The number with 9 significant digits: enough to restore a float32, and short in the file."""
    if value is None or not math.isfinite(value):
        return value
    return float(f"{value:.9g}")


def _values(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _total(values: Iterable[float | None]) -> float | None:
    """The sum, None when any summand was not measured."""
    listed = list(values)
    known = _values(listed)
    return float(sum(known)) if listed and len(known) == len(listed) else None


def _reduce(function: Callable[[list[float]], np.floating], values: list[float]) -> float | None:
    if not values:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return tidy(float(function(values)))


def _rate(amount: float | None, seconds: float | None) -> float | None:
    return tidy(amount / seconds) if amount is not None and seconds else None
