"""How records enter the history."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from torchwatch.history.columns import ColumnHistory
from torchwatch.history.heads import Attentions
from torchwatch.history.learning_rate import LearningRate
from torchwatch.history.maps import Maps
from torchwatch.history.rows import Fields, Rows, Sums
from torchwatch.history.scalars import Scalars, Values
from torchwatch.records import (
    STEP_COLUMNS,
    STEP_NUMBERS,
    Attention,
    Column,
    Epoch,
    Eval,
    Interval,
    Layout,
    Log,
    Profile,
    Record,
    RunHeader,
    Step,
    StepColumns,
    Steps,
    System,
    is_missing,
)

_MAPS = ("loss_source", "fingerprint", "inputs", "targets", "wiring", "first_nonfinite")
_INTERVAL_FIELDS = tuple(
    f.name for f in dataclasses.fields(Interval) if f.default is None and f.name not in ("epoch", "thinned")
)
_SYSTEM_FIELDS = tuple(f.name for f in dataclasses.fields(System) if f.default is None)
_SUMS: dict[str, Callable[[Interval], float | None]] = {
    "busy_s": attrgetter("busy_s"),
    "energy_j": attrgetter("energy_j"),
    "co2_kg": attrgetter("co2_kg"),
    "metered_s": lambda i: i.duration_s if i.energy_j is not None else None,
    "metered_samples": lambda i: i.samples if i.energy_j is not None else None,
}
_MOST_NAMES = 4096
_MOST_EVAL_NAMES = 256


class Intake:
    """The state behind :class:`~torchwatch.history.History` and everything that changes it."""

    def __init__(self) -> None:
        self.header = RunHeader()
        self.layout: Layout | None = None
        self.step = 0
        self.epoch: int | None = None
        self.time_s = 0.0
        self.new_from = 1
        self.declared: dict[str, Any] = {}
        self._intervals = Rows[Interval](4096)
        self._epochs = Rows[Epoch](4096)
        self._evals = Rows[Eval](4096)
        self._interval_fields = Fields[Interval](
            lambda record, name: getattr(record, name, None), attrgetter("last_step")
        )
        self._eval_fields = Fields[Eval](lambda record, name: record.metrics.get(name), attrgetter("step"))
        self._sums = Sums[Interval](_SUMS, 4096)
        self._systems = Rows[System](1024, thin=False)
        self._profiles = Rows[Profile](16, thin=False)
        self._logs = Rows[Log](256, thin=False)
        self._scalars = Scalars()
        self._columns: dict[str, ColumnHistory] = {}
        self._rate = LearningRate()
        self._maps = Maps()
        self._attention = Attentions()
        self._seen: set[str] = set()
        self._eval_best: dict[str, tuple[int, float] | None] = {}
        self._pass: dict[Hashable, Any] = {}
        self._slow: dict[Hashable, Any] = {}
        self._of_layout: dict[Hashable, Any] = {}

    def add(self, record: Record) -> None:
        """Take in one record; kinds that no check reads are ignored."""
        self._pass.clear()
        take = _TAKERS.get(type(record))
        if take is not None:
            self.new_from = self.step + 1
            take(self, record)

    def _take_header(self, record: RunHeader) -> None:
        self.header = record
        declared = record.config.get("declare")
        self.declared = dict(declared) if isinstance(declared, Mapping) else {}

    def _take_layout(self, record: Layout) -> None:
        before, self.layout = self.layout, record
        self._of_layout.clear()
        self._see(("layout",))
        same = before is None or _names(before) == _names(record)
        if not same:
            self._maps.forget("wiring")  # its indices are of the layout before
        self._columns = {
            name: column
            for name, column in self._columns.items()
            if same and column.width == self._width(record, name)
        }

    def _take_step(self, record: Step) -> None:
        values: dict[str, Any] = {name: getattr(record, name) for name in STEP_NUMBERS}
        rate = values["lr"] = _largest(record.lr)
        if record.metrics:
            values |= {f"metrics.{k}": v for k, v in record.metrics.items()}
        self._see(n for n in _MAPS if getattr(record, n) is not None)
        self._see(n for n, v in values.items() if v is not None)
        self._scalars.put(record.step, values)
        if rate is not None:
            self._rate.put(record.step, record.epoch, rate, gap=record.step - self.step)
        self._maps.take_step(record)
        self._put_columns(record.step, record)
        self._at(record.step, record.epoch, record.time_s)
        self.new_from = record.step

    def _take_steps(self, record: Steps) -> None:
        count = len(record.step)
        if not count:
            return
        values: dict[str, Sequence[Any] | Values] = {
            name: column for name in STEP_NUMBERS if (column := getattr(record, name)) is not None
        }
        epochs = record.epoch or [None] * count
        if record.lr is not None:
            values["lr"] = self._take_rates(record.step, epochs, record.lr)
        values |= {f"metrics.{k}": v for k, v in (record.metrics or {}).items()}
        self._see(n for n in _MAPS if getattr(record, n) is not None)
        self._see(n for n, v in values.items() if n not in self._seen and _any(v))
        self._scalars.extend(record.step, values)
        self._maps.take_steps(record)
        if record.columns:
            for index, step in enumerate(record.step):
                columns = record.columns.get(str(index))
                if columns is not None:
                    self._put_columns(step, columns)
        last_epoch = next((e for e in reversed(epochs) if e is not None), None)
        last_s = None if record.time_s is None else record.time_s[-1]
        self._at(record.step[-1], last_epoch, float(last_s or 0.0))
        self.new_from = record.step[0]

    def _take_rates(
        self, steps: Sequence[int], epochs: Sequence[int | None], groups: Sequence[list[float] | None]
    ) -> Sequence[float | None] | Values:
        """The largest rate of every step, followed for warm-up and rises; usually one for all steps."""
        if groups[0] is not None and groups[0] == groups[-1] and groups.count(groups[0]) == len(groups):
            rate = _largest(groups[0])
            self._rate.extend(steps[:1], epochs[:1], [rate])
            return [None] * len(steps) if rate is None else np.full(len(steps), rate)
        rates = [_largest(r) for r in groups]
        self._rate.extend(steps, epochs, rates)
        return rates

    def _take_interval(self, record: Interval) -> None:
        self._slow.clear()
        self._interval_fields.added(record, others_went=self._intervals.append(record))
        self._sums.add(record.last_step, record)
        self._see(n for n in _INTERVAL_FIELDS if getattr(record, n) is not None)
        for column in self._columns.values():
            column.close_interval(record.last_step)
        self._at(self.step, record.epoch, record.time_s)

    def _take_epoch(self, record: Epoch) -> None:
        self._epochs.append(record)
        self._see(("epochs", *(n for n, v in record.metrics.items() if v is not None)))
        self._at(self.step, record.epoch, record.time_s)

    def _take_eval(self, record: Eval) -> None:
        self._slow.clear()
        self._eval_fields.added(record, others_went=self._evals.append(record))
        for name, value in record.metrics.items():
            known = name in self._eval_best or len(self._eval_best) < _MOST_EVAL_NAMES
            if known and isinstance(value, (int, float)):
                best = self._eval_best.get(name)
                better = math.isfinite(value) and (best is None or value < best[1])
                self._eval_best[name] = (record.step, float(value)) if better else best
        self._see(n for n, v in record.metrics.items() if v is not None)
        self._at(self.step, record.epoch, record.time_s)

    def _take_system(self, record: System) -> None:
        self._systems.append(record)
        self._see(n for n in _SYSTEM_FIELDS if getattr(record, n) is not None)
        self._at(self.step, None, record.time_s)

    def _take_profile(self, record: Profile) -> None:
        self._profiles.append(record)
        self._see(("profile",))

    def _take_log(self, record: Log) -> None:
        self._logs.append(record)
        self._see(("log",))

    def _take_attention(self, record: Attention) -> None:
        self._attention.take(record)
        self._see(("attention",))

    def _at(self, step: int, epoch: int | None, time_s: float) -> None:
        self.step = step
        self.epoch = self.epoch if epoch is None else epoch
        self.time_s = max(self.time_s, time_s)

    def _see(self, names: Iterable[str]) -> None:
        if len(self._seen) < _MOST_NAMES:
            self._seen.update(names)

    def _put_columns(self, step: int, record: Step | StepColumns) -> None:
        for name in STEP_COLUMNS[:-1]:
            column = getattr(record, name)
            if column is not None:
                self._put_column(name, step, column)
        for statistic, column in (record.activations or {}).items():
            self._put_column(f"activations.{statistic}", step, column)

    def _put_column(self, name: str, step: int, column: Column) -> None:
        """Append an observation; one that does not fit the layout cannot be read and is left out."""
        known = self._columns.get(name)
        if known is None:
            if self.layout is not None and len(column) != self._width(self.layout, name):
                return
            known = self._columns[name] = ColumnHistory(len(column))
        if known.width == len(column):
            known.put(step, column)
            if name not in self._seen and not is_missing(column).all():
                self._see((name,))

    @staticmethod
    def _width(layout: Layout, name: str) -> int:
        return len(layout.layers if name.startswith("activations.") else layout.parameters)


def _names(layout: Layout) -> tuple[list[str], list[str]]:
    return [x.name for x in layout.layers], [p.name for p in layout.parameters]


def _any(values: Sequence[Any] | Values) -> bool:
    return isinstance(values, np.ndarray) or any(v is not None for v in values)


def _largest(rates: Any) -> float | None:
    known = [r for r in rates or () if isinstance(r, (int, float))]
    return float(max(known)) if known else None


_TAKERS: dict[type[Record], Callable[[Any, Any], None]] = {
    RunHeader: Intake._take_header,
    Layout: Intake._take_layout,
    Step: Intake._take_step,
    Steps: Intake._take_steps,
    Interval: Intake._take_interval,
    Epoch: Intake._take_epoch,
    Eval: Intake._take_eval,
    System: Intake._take_system,
    Profile: Intake._take_profile,
    Log: Intake._take_log,
    Attention: Intake._take_attention,
}
