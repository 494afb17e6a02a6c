"""Steps summed up: when an interval closes and what it says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from torchwatch.records import Epoch, Interval, Step, Steps, as_list

N = TypeVar("N", int, float)
Values = npt.NDArray[np.float64]

_SHORT_INTERVALS = 50
_SHORTEST_S = 0.5


class IntervalBuilder:
    """Collects steps and closes intervals and epochs.

    On a loop of sub-millisecond steps 200 steps are soon over, and what closing costs would be a good part of
    the training: after the first 50 intervals one also lasts at least half a second.

    Args:
        interval_steps: an interval closes after this many steps (default 200).
    """

    def __init__(self, interval_steps: int = 200) -> None:
        self.interval_steps = interval_steps
        self._pieces: list[Step | Steps] = []
        self._count = self._usual = 0
        self._index = 0
        self._opened_s = self._last_s = 0.0
        self._epoch = _Epoch()
        self._epoch_opened_s = 0.0

    @property
    def full(self) -> bool:
        """Whether the interval is to be closed."""
        if self._count < self.interval_steps:
            return False
        return self._index < _SHORT_INTERVALS or self._last_s - self._opened_s >= _SHORTEST_S

    @property
    def room(self) -> int:
        """How many steps a line may bring, at least 1: until there are as many as in the interval before.

        A line that is cut costs a pass of the checks more.
        """
        left = max(self.interval_steps, self._usual) - self._count
        return left if left > 0 else self.interval_steps

    @property
    def empty(self) -> bool:
        """Whether no step was added since the last interval."""
        return not self._pieces

    def add(self, step: Step) -> None:
        """Take in a step, without its columns."""
        self._pieces.append(step)
        self._count += 1
        self._last_s = step.time_s

    def add_all(self, line: Steps) -> None:
        """Take in the steps of a line: the same as adding them one by one. Its columns are not kept."""
        if line.step:
            self._pieces.append(line if line.columns is None else dataclasses.replace(line, columns=None))
            self._count += len(line.step)
            self._last_s = float(as_list(line.time_s)[-1]) if line.time_s is not None else self._last_s

    def close(self, closed_by: str, time_s: float, **measured: Any) -> Interval:
        """The interval of the steps since the last one; ``measured`` fills fields that steps do not have.

        ``flops_per_step`` and ``peak_flops_per_s`` are the layout's.
        """
        pieces, self._pieces = self._pieces, []
        count, self._count = self._count, 0
        self._usual = count if self._index >= _SHORT_INTERVALS else 0
        taken = _Taken(pieces)
        losses, _ = taken.numbers("loss")
        busy, wait, samples = taken.total("step_time_s"), taken.total("wait_time_s"), taken.total("samples")
        flops = _rate(_times(measured.pop("flops_per_step", None), count), busy)
        peak, energy = measured.pop("peak_flops_per_s", None), measured.get("energy_j")
        fields: dict[str, Any] = {
            "busy_s": tidy(busy),
            "loss_mean": _reduce(np.mean, losses),
            "loss_std": _reduce(np.std, losses),
            "loss_min": _reduce(np.min, losses),
            "loss_max": _reduce(np.max, losses),
            "lr_max": taken.highest_rate(),
            "grad_norm_median": _reduce(_median, taken.numbers("grad_norm")[0]),
            "update_ratio_median": _reduce(_median, taken.numbers("update_ratio")[0]),
            "samples": None if samples is None else int(samples),
            "steps_per_s": _rate(count, busy),
            "samples_per_s": _rate(samples, busy),
            "step_time_median_s": _reduce(_median, taken.numbers("step_time_s")[0]),
            "wait_share": _rate(wait, busy),
            "tokens_per_s": taken.per_second("tokens"),
            "forward_share": taken.per_second("forward_s"),
            "backward_share": taken.per_second("backward_s"),
            "optimizer_share": taken.per_second("optimizer_s"),
            "flops_per_s": flops,
            "mfu": _rate(flops, peak),
            "joules_per_step": _rate(energy, count),
            "joules_per_sample": _rate(energy, samples),
        }
        first, last, epoch = _ends(pieces)
        interval = Interval(
            index=self._index,
            first_step=first,
            last_step=last,
            steps=count,
            epoch=epoch,
            time_s=time_s,
            closed_by=closed_by,
            duration_s=tidy(time_s - self._opened_s) or 0.0,
            **fields | measured,
        )
        self._index += 1
        self._opened_s = time_s
        self._epoch.add(interval, losses)
        return interval

    def close_epoch(self, epoch: int, step: int, time_s: float, metrics: dict[str, float | None]) -> Epoch:
        """The epoch of the intervals since the last one."""
        sums, self._epoch = self._epoch, _Epoch()
        opened_s, self._epoch_opened_s = self._epoch_opened_s, time_s
        return Epoch(
            epoch=epoch,
            step=step,
            steps=sums.steps,
            time_s=time_s,
            duration_s=tidy(time_s - opened_s) or 0.0,
            loss_mean=tidy(sums.loss / sums.losses) if sums.losses else None,
            samples=sums.samples,
            samples_per_s=_rate(sums.samples, sums.busy_s),
            wait_share=_rate(sums.wait_s, sums.busy_s),
            metrics=metrics,
        )


class _Epoch:
    """Sums over the intervals of an epoch; one that an interval did not measure is None."""

    def __init__(self) -> None:
        self.steps = self.losses = 0
        self.loss = 0.0
        self.samples: int | None = None
        self.busy_s: float | None = None
        self.wait_s: float | None = None

    def add(self, interval: Interval, losses: Values) -> None:
        """Take in an interval and the losses of its steps."""
        first = self.steps == 0
        self.steps += interval.steps
        self.loss += _sum(losses)
        self.losses += len(losses)
        waited = None
        if interval.wait_share is not None and interval.busy_s is not None:
            waited = interval.wait_share * interval.busy_s
        self.samples = interval.samples if first else _plus(self.samples, interval.samples)
        self.busy_s = interval.busy_s if first else _plus(self.busy_s, interval.busy_s)
        self.wait_s = waited if first else _plus(self.wait_s, waited)


def _plus(one: N | None, other: N | None) -> N | None:
    return None if one is None or other is None else one + other


class _Taken:
    """Fields of the steps of an interval, gathered from single steps and lines alike."""

    def __init__(self, pieces: list[Step | Steps]) -> None:
        self._pieces = pieces

    def numbers(self, name: str) -> tuple[Values, bool]:
        """What was measured, in order, and whether every step measured it."""
        arrays: list[Values] = []
        singles: list[float] = []
        whole = True
        for piece in self._pieces:
            value = getattr(piece, name)
            if isinstance(value, np.ndarray):
                arrays += [np.array(singles, np.float64), value] if singles else [value]
                singles = []
            elif isinstance(piece, Steps):
                known = [v for v in value or () if v is not None]
                whole = whole and len(known) == len(piece.step)
                singles += known
            elif value is None:
                whole = False
            else:
                singles.append(value)
        return np.concatenate([*arrays, np.array(singles, np.float64)]), whole

    def total(self, name: str) -> float | None:
        """The sum, None where one step did not measure it."""
        values, whole = self.numbers(name)
        return _sum(values) if whole and len(values) else None

    def per_second(self, name: str) -> float | None:
        """The sum over the host's own time in those steps that measured it.

        What watching took is out of that time: it is more on the steps that are measured than on others.
        """
        if all(getattr(piece, name) is None for piece in self._pieces):
            return None
        amounts, seconds = self._aligned(name), self._aligned("step_time_s")
        seconds = seconds - np.nan_to_num(self._aligned("watch_time_s"))
        both = ~(np.isnan(amounts) | np.isnan(seconds))
        return _rate(_sum(amounts[both]), _sum(seconds[both]))

    def highest_rate(self) -> float | None:
        """The largest learning rate of all groups and steps."""
        rates: list[float] = []
        for piece in self._pieces:
            groups = piece.lr or [] if isinstance(piece, Steps) else [piece.lr]
            if groups and groups.count(groups[0]) == len(groups):  # usually
                groups = groups[:1]
            rates += [max(group) for group in groups if group]
        return max(rates, default=None)

    def _aligned(self, name: str) -> Values:
        """An entry per step, NaN where it was not measured."""
        values: list[float] = []
        for piece in self._pieces:
            value = getattr(piece, name)
            if isinstance(piece, Steps):
                values += [math.nan] * len(piece.step) if value is None else _nan_for_none(as_list(value))
            else:
                values += _nan_for_none([value])
        return np.array(values, np.float64)


def _nan_for_none(values: list[float | None]) -> list[float]:
    return [math.nan if v is None else v for v in values]


def _ends(pieces: list[Step | Steps]) -> tuple[int, int, int | None]:
    """First and last step, and the last one's epoch."""
    first, last = pieces[0], pieces[-1]
    first_step = first.step[0] if isinstance(first, Steps) else first.step
    if isinstance(last, Steps):
        return first_step, last.step[-1], last.epoch[-1] if last.epoch else None
    return first_step, last.step, last.epoch


def tidy(value: float | None) -> float | None:
    """The number with 9 significant digits: enough to restore a float32, and short in the file."""
    if value is None or not math.isfinite(value):
        return value
    return float(f"{value:.9g}")


def _sum(values: Values) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(values.sum())


def _reduce(function: Callable[[Values], np.floating], values: Values) -> float | None:
    if not len(values):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        return tidy(float(function(values)))


def _median(values: Values) -> np.float64:
    """NaN if there is one. For a few hundred values ten times as fast as numpy's."""
    ordered = np.sort(values)
    half = len(ordered) // 2
    if np.isnan(ordered[-1]):  # NaN sort last
        return np.float64(math.nan)
    return np.float64(ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _times(value: float | None, count: int) -> float | None:
    return None if value is None else value * count


def _rate(amount: float | None, seconds: float | None) -> float | None:
    return tidy(amount / seconds) if amount is not None and seconds else None
