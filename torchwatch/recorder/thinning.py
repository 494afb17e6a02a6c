"""The disk budget: what is left out of the run file so that it stays small, columns first.

Up to ``disk_full_bytes`` everything is written. From there on the file may grow by ``disk_bytes_per_hour``:
what may be written is held in a bank that fills with time and is drawn on by every line.

1. Steps share lines wherever several wait (:attr:`DiskBudget.tight`): a third of the bytes, nothing lost.
2. Columns are written as far as the bank allows. Complete ones (of sampled steps) come before those of
   gradients alone, and a reserve of two minutes is kept for steps that a warning has measured. Complete
   columns, attention and histograms get equal shares of the bytes, or less where they ask for less.
3. Where not even the scalars of every step fit, those of every k-th step are written, k from the 1-2-5
   ladder. Columns then get what is left: a tenth.
4. On loops so fast that intervals alone would take more than an eighth, intervals grow longer.

Steps at which the loss or the gradient norm stops being finite are always written, as are alerts, logs, the
black box and the end. Thinning comes before the checks: they see what is in the file, so that live equals
replay. Intervals sum up every step, written or not, and say what was left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from torchwatch.recorder.costs import Costs, entries
from torchwatch.recorder.shares import Shares
from torchwatch.records import (
    STEP_COLUMNS,
    STEP_SCALARS,
    Attention,
    Histogram,
    Record,
    Step,
    StepColumns,
    Steps,
)
from torchwatch.schedule import LADDER

_PERIOD_S = 10.0
_RESERVE_S = 120.0
_MOST_S = 600.0
_SCALARS_SHARE = 0.9
_LEAST_SHARE = 0.25
_INTERVALS_SHARE = 0.125
_HYSTERESIS = 0.8
_PAY_BACK_S = 120.0
_LISTED = tuple(n for n in STEP_SCALARS if n not in ("step", "metrics"))


class DiskBudget:
    """Decides for every step what of it is written.

    Args:
        full_bytes: up to this size nothing is left out (bytes).
        bytes_per_hour: by how much the file may grow after that (bytes per hour of the run).

    Attributes:
        tight: whether the first size is used up; steps then share lines wherever several wait.
        every: the scalars of every so many steps are written.
        longer: how many times as long as configured intervals are.
    """

    def __init__(self, full_bytes: int, bytes_per_hour: int) -> None:
        self.tight = False
        self.every = 1
        self.longer = 1
        self._rate = bytes_per_hour / 3600  # bytes per second
        self._reserve = min(self._rate * _RESERVE_S, full_bytes / 8)
        self._full = full_bytes - self._reserve
        self._size = 0
        self._bank = self._reserve
        self._promised = 0.0
        self._time_s = 0.0
        self._sound = True
        self._costs = Costs()
        self._shares = Shares(self._reserve)
        self._told: Counter[str] = Counter()

    def step(self, step: Step, sampled_every: int = 1) -> Step | None:
        """The step as it is to be written, None where it is left out.

        Args:
            step: with its columns rounded.
            sampled_every: multiples of it are sampled anyway; another step that is complete was measured
                because of a warning, and may draw on the reserve.
        """
        self._costs.offered += 1
        self._told["steps"] += 1
        turning = self._turns(step.loss, step.grad_norm) or step.first_nonfinite is not None
        has_columns = entries(step) > 0
        keeps = has_columns and self._affords(step, urgent=step.step % sampled_every > 0)
        if not (keeps or turning or step.step % self.every == 0):
            return None
        self._told["steps kept"] += 1
        if keeps or not has_columns:
            return step
        without: dict[str, Any] = dict.fromkeys(STEP_COLUMNS)
        return dataclasses.replace(step, **without)

    def line(self, line: Steps, sampled_every: int = 1) -> Steps | None:
        """The line as it is to be written, None where nothing of it is; arguments as for :meth:`step`."""
        count = len(line.step)
        self._costs.offered += count
        self._told["steps"] += count
        columns = {
            at: c
            for at, c in (line.columns or {}).items()
            if self._affords(c, urgent=line.step[int(at)] % sampled_every > 0)
        }
        if line.columns is not None and len(columns) < len(line.columns):
            line = dataclasses.replace(line, columns=columns or None)
        if self.every > 1 and count:
            return self._part(line, {int(at) for at in columns})
        if count:
            self._sound = _is_sound(_at(line.loss, -1), _at(line.grad_norm, -1))
        self._told["steps kept"] += count
        return line

    def detail(self, record: Record) -> bool:
        """Whether a record of its own that a probe made is written; attention and histograms may not be."""
        if not isinstance(record, (Attention, Histogram)):
            return True
        self._told[record.kind] += 1
        if not self._draw_share(record.kind, self._costs.detail(record)):
            return False
        self._told[f"{record.kind} kept"] += 1
        return True

    def wrote(self, records: Iterable[Record], sizes: Iterable[int], time_s: float) -> None:
        """Lines were written: their records, their lengths (bytes) and the time of the run (seconds)."""
        self._promised = 0.0
        for record, size in zip(records, sizes, strict=True):
            self._size += size
            self._bank -= size if self.tight else 0
            self._costs.add(record, size)
        passed_s, self._time_s = max(time_s - self._time_s, 0.0), max(time_s, self._time_s)
        if self.tight:
            self._bank = min(self._bank + self._rate * passed_s, self._rate * _MOST_S)
        if self._costs.measured(self._time_s, _PERIOD_S) and self.tight:
            self._plan()
        if not self.tight and self._size >= self._full:
            self.tight = True
            self._costs.measured(self._time_s, _PERIOD_S / 10)
            self._plan()

    def interval_steps(self, configured: int) -> int:
        """How many steps an interval has."""
        self._costs.interval_steps = configured
        return configured * self.longer

    def thinned(self) -> str | None:
        """What was left out since this was last asked, for the interval's record; None: nothing."""
        told, self._told = self._told, Counter()
        parts = []
        for what, words in (
            ("columns", "columns of {} of {} measured steps"), ("steps", "{} of {} steps"),
            (Attention.kind, "{} of {} attention records"), (Histogram.kind, "{} of {} histograms"),
        ):  # fmt: skip
            if told[f"{what} kept"] < told[what]:
                parts.append(words.format(told[f"{what} kept"], told[what]))
        text = f"written: {', '.join(parts)}" if parts else ""
        if self.longer > 1:
            text += f"{'; ' if text else ''}intervals {self.longer} times as long"
        return text or None

    def _affords(self, columns: Step | StepColumns, *, urgent: bool) -> bool:
        """Whether the columns can be paid for; then they are."""
        count = entries(columns)
        if not count:
            return True
        self._told["columns"] += 1
        amount = count * self._costs.per_entry
        if columns.activations is None:
            written = self._draw(amount, 2 * self._reserve)
        else:
            written = self._draw(amount, 0.0) if urgent else self._draw_share("columns", amount)
        if not written:
            return False
        self._told["columns kept"] += 1
        return True

    def _draw_share(self, kind: str, amount: float) -> bool:
        """Promise bytes of what is above the reserve, if it is this kind's turn."""
        if not self.tight:
            return self._draw(amount, self._reserve)
        if not self._shares.offer(kind):
            return False
        if self._draw(amount, self._reserve):
            self._shares.took(kind, amount)
            return True
        if amount <= self._rate * _MOST_S - self._reserve:  # else it would wait for ever
            self._shares.waits(kind)
        return False

    def _draw(self, amount: float, level: float) -> bool:
        """Promise bytes of the bank, unless that brought it below the level."""
        if self.tight and self._bank - self._promised - amount < level:
            return False
        self._promised += amount
        return True

    def _turns(self, loss: float | None, norm: float | None) -> bool:
        """Whether a loss or norm stops being finite here."""
        before, self._sound = self._sound, _is_sound(loss, norm)
        return before and not self._sound

    def _part(self, line: Steps, needed: set[int]) -> Steps | None:
        """Every k-th step, and those that are needed."""
        sound = np.array(
            [_is_sound(_at(line.loss, i), _at(line.grad_norm, i)) for i in range(len(line.step))]
        )
        keep = np.array(line.step) % self.every == 0
        keep |= np.append(self._sound, sound[:-1]) & ~sound
        keep |= [i in needed or _at(line.first_nonfinite, i) is not None for i in range(len(line.step))]
        self._sound = bool(sound[-1])
        places = np.flatnonzero(keep).tolist()
        self._told["steps kept"] += len(places)
        return _taken(line, places) if places else None

    def _plan(self) -> None:
        """Set what is written of the scalars, and how long intervals are."""
        costs = self._costs
        steps_per_s = costs.steps_per_s
        intervals = costs.interval * steps_per_s / costs.interval_steps
        self.longer = _rung(intervals, _INTERVALS_SHARE * self._rate)
        room = _SCALARS_SHARE * self._rate - costs.others_per_s - intervals / self.longer
        room = max(room, _LEAST_SHARE * self._rate)
        room = max(room + min(self._bank, 0.0) / _PAY_BACK_S, _LEAST_SHARE * self._rate / 2)
        demand = costs.step * steps_per_s
        every = _rung(demand, room)
        if every > self.every or demand / every <= _HYSTERESIS * room:
            self.every = every


def _rung(demand: float, room: float) -> int:
    """The smallest step of the ladder by which the demand must be divided to fit."""
    return next((rung for rung in LADDER if demand <= rung * room), LADDER[-1])


def _is_sound(loss: float | None, norm: float | None) -> bool:
    return all(v is None or math.isfinite(v) for v in (loss, norm))


def _at(values: Any, place: int) -> Any:
    return None if values is None else values[place]


def _taken(line: Steps, places: list[int]) -> Steps:
    """The line of the steps at these places; columns move with them."""
    fields = {n: _pick(v, places) for n in _LISTED if (v := getattr(line, n)) is not None}
    metrics = None if line.metrics is None else {n: _pick(v, places) for n, v in line.metrics.items()}
    now = {str(before): str(after) for after, before in enumerate(places)}
    columns = None if line.columns is None else {now[at]: c for at, c in line.columns.items() if at in now}
    return Steps(step=_pick(line.step, places), metrics=metrics, columns=columns or None, **fields)


def _pick(values: Any, places: list[int]) -> Any:
    return values[places] if isinstance(values, np.ndarray) else [values[i] for i in places]
