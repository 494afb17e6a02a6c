"""What lines of the run file cost, learned from those that were written."""

from __future__ import annotations

import dataclasses
from typing import Any

from torchwatch.records import (
    STEP_COLUMNS,
    Attention,
    Blackbox,
    Histogram,
    Interval,
    Layout,
    Profile,
    Record,
    RunHeader,
    Step,
    StepColumns,
    Steps,
    encode,
)

_SMOOTH = 0.3
_DETAIL = 4096.0
_ASK_EVERY = 50
_ONCE = (RunHeader, Layout, Blackbox, Profile)


class Costs:
    """Bytes per kind of line, and their rates over the last period.

    Attributes:
        step: the scalars of one step, in the lines that are written now.
        per_entry: one entry of a column.
        interval: one interval record.
        steps_per_s: steps per second of the run.
        others_per_s: bytes per second of what comes again and again beside steps, intervals and detail.
        offered: steps since the period began.
        interval_steps: how many steps an interval has unless it is longer.
    """

    def __init__(self) -> None:
        self.step, self.per_entry, self.interval = 300.0, 8.0, 800.0
        self._per_step: dict[type[Record], float] = {}
        self._with_columns = 0
        self.steps_per_s = self.others_per_s = 0.0
        self.offered = 0
        self.interval_steps = 200
        self._details: dict[str, float] = {}
        self._others = 0
        self._began_s = 0.0

    def add(self, record: Record, size: int) -> None:
        """Learn from a line of so many bytes."""
        if isinstance(record, Steps):
            columns = (record.columns or {}).values()
            self._add_steps(record, len(record.step), sum(map(entries, columns)), size)
        elif isinstance(record, Step):
            self._add_steps(record, 1, entries(record), size)
        elif isinstance(record, Interval):
            self.interval += _SMOOTH * (size - self.interval)
        elif isinstance(record, (Attention, Histogram)):
            self._details[record.kind] = size
        elif not isinstance(record, _ONCE):
            self._others += size

    def _add_steps(self, record: Step | Steps, steps: int, numbers: int, size: int) -> None:
        if numbers:  # how much of it are the columns? It is enough to ask now and then
            self._with_columns += 1
            if self._with_columns % _ASK_EVERY != 1:
                return
            alone = len(encode(_without_columns(record)))
            self.per_entry += _SMOOTH * ((size - alone) / numbers - self.per_entry)
            size = alone
        if steps:
            known = self._per_step.setdefault(type(record), size / steps)
            self.step = self._per_step[type(record)] = known + _SMOOTH * (size / steps - known)

    def detail(self, record: Record) -> float:
        """What a record like this one takes."""
        return self._details.get(record.kind, _DETAIL)

    def measured(self, time_s: float, least_s: float) -> bool:
        """Whether at this time a period of at least so many seconds is over: its rates are known then."""
        passed_s = time_s - self._began_s
        if passed_s < least_s:
            return False
        self.steps_per_s, others = self.offered / passed_s, self._others / passed_s
        self.others_per_s += _SMOOTH * (others - self.others_per_s)
        self.offered = self._others = 0
        self._began_s = time_s
        return True


def _without_columns(record: Step | Steps) -> Step | Steps:
    if isinstance(record, Steps):
        return dataclasses.replace(record, columns=None)
    without: dict[str, Any] = dict.fromkeys(STEP_COLUMNS)
    return dataclasses.replace(record, **without)


def entries(columns: Step | StepColumns) -> int:
    """Entries of all columns of a step."""
    known = (getattr(columns, name) for name in STEP_COLUMNS[:-1])
    layers = (columns.activations or {}).values()
    return sum(len(c) for c in known if c is not None) + sum(map(len, layers))
