"""Hand-made runs: header, layout, steps, intervals, epochs and evaluations in the order of a run file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from torchwatch.records import (
    Column,
    Epoch,
    Eval,
    Interval,
    LayerInfo,
    Layout,
    OptimizerInfo,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    batch,
    missing_column,
)

Values = Any
"""One value for all steps, a sequence with one per step, or a function of the step number (from 1)."""


def layout(
    layers: Sequence[str | LayerInfo] = ("0", "1", "2"),
    parameters: Sequence[str | ParameterInfo] | None = None,
    optimizer: str = "SGD",
    coverage: Mapping[str, str] | None = None,
) -> Layout:
    """A layout: names become Linear layers of 16 features with one weight each, in one optimizer group."""
    infos = [x if isinstance(x, LayerInfo) else _linear(x, i) for i, x in enumerate(layers)]
    if parameters is None:
        parameters = [f"{x.name}.weight" for x in infos if x.parameters]
    names = [x.name for x in infos]
    return Layout(
        step=1,
        layers=infos,
        parameters=[p if isinstance(p, ParameterInfo) else _weight(p, names) for p in parameters],
        optimizers=[OptimizerInfo(optimizer, [{"lr": 0.01}])],
        coverage=dict(coverage or {}),
    )


def _linear(name: str, order: int) -> LayerInfo:
    return LayerInfo(
        name, "Linear", 256, order=order, inputs=[[32, 16]], outputs=[[32, 16]],
        attributes={"in_features": 16, "out_features": 16},
    )  # fmt: skip


def _weight(name: str, layers: Sequence[str]) -> ParameterInfo:
    owner = name.rpartition(".")[0]
    return ParameterInfo(
        name, layers.index(owner) if owner in layers else 0, [16, 16], "float32", optimizer=0, group=0
    )


def records(
    loss: Values = None,
    *,
    steps: int | None = None,
    lr: Values = 0.01,
    interval_steps: int = 50,
    epoch_steps: int | None = None,
    layers: Sequence[str | LayerInfo] | Layout = ("0", "1", "2"),
    columns: Mapping[str, Any] | None = None,
    columns_every: int = 1,
    evals: Mapping[int, Mapping[str, float]] | None = None,
    intervals: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Values] | None = None,
    declare: Mapping[str, Any] | None = None,
    step_time_s: Values = 0.01,
    batched: int | None = None,
    extra: Mapping[int, Sequence[Record]] | None = None,
    **scalars: Values,
) -> list[Record]:
    """A run, without its end record.

    Args:
        loss: per step; None stands for "not measured".
        steps: how many, by default the length of the longest sequence given.
        lr: largest learning rate per step.
        interval_steps: an interval closes after this many steps, or at the end of an epoch.
        epoch_steps: length of an epoch; None: one endless epoch 0 with no epoch record.
        layers: names, LayerInfos, or a whole :class:`Layout` (see :func:`layout`).
        columns: "grad_norms", "update_ratios", "weight_norms", "activations.<statistic>" → one row for all
            steps, a list of rows (one per step), or a function of the step; a None entry was not measured,
            a number is a row of that number.
        columns_every: columns only at step 1 and at every n-th step.
        evals: step after which it came → metrics.
        intervals: fields of the interval records, per interval index or as function of it.
        metrics: logged metrics per step.
        declare: what the user declared.
        step_time_s: per step; it also drives ``time_s``.
        batched: write the steps as ``steps`` lines of so many.
        extra: step after which they come → other records (system, log …).
        scalars: any other scalar field of a step.
    """
    count = steps or _longest([loss, lr, step_time_s, *scalars.values(), *(metrics or {}).values()])
    shape = layers if isinstance(layers, Layout) else layout(layers)
    fields = {"loss": loss, "step_time_s": step_time_s, **scalars}
    writer = _Writer(interval_steps, epoch_steps, batched, intervals or {})
    time_s = 0.0
    for number in range(1, count + 1):
        values = {k: _at(v, number) for k, v in fields.items()}
        time_s += values["step_time_s"] or 0.0
        logged = {k: _at(v, number) for k, v in (metrics or {}).items()}
        rate = _at(lr, number)
        epoch = 0 if epoch_steps is None else (number - 1) // epoch_steps
        due = number == 1 or number % columns_every == 0
        step = Step(
            step=number, epoch=epoch, time_s=time_s, lr=None if rate is None else [rate],
            metrics=logged or None, **values, **(_columns(columns or {}, number, shape) if due else {}),
        )  # fmt: skip
        evaluated = (evals or {}).get(number)
        after = [] if evaluated is None else [Eval(number, epoch, time_s, dict(evaluated))]
        writer.add(step, after, (extra or {}).get(number, ()), last=number == count)
    return [RunHeader(run_id="hand-made", config={"declare": dict(declare or {})}), shape, *writer.body]


class _Writer:
    """Puts steps, and what comes after them, in the order of a run file."""

    def __init__(
        self, interval_steps: int, epoch_steps: int | None, batched: int | None, given: Mapping[str, Any]
    ) -> None:
        self.body: list[Record] = []
        self._interval_steps, self._epoch_steps, self._batched = interval_steps, epoch_steps, batched or 1
        self._given = given
        self._waiting: list[Step] = []
        self._interval: list[Step] = []
        self._epoch: list[Step] = []
        self._index = 0

    def add(self, step: Step, evals: Sequence[Eval], extra: Sequence[Record], *, last: bool) -> None:
        for steps in (self._waiting, self._interval, self._epoch):
            steps.append(step)
        epoch_ends = self._epoch_steps is not None and step.step % self._epoch_steps == 0
        closes = epoch_ends or len(self._interval) == self._interval_steps
        if closes or evals or extra or last or len(self._waiting) == self._batched:
            self.body += [batch(self._waiting)] if len(self._waiting) > 1 else self._waiting
            self._waiting = []
        if closes:
            self.body.append(_interval(self._index, self._interval, epoch_ends=epoch_ends, given=self._given))
            self._index += 1
            self._interval = []
        self.body += evals
        if epoch_ends:
            self.body.append(_epoch(self._epoch, evals))
            self._epoch = []
        self.body += extra


def _longest(values: Iterable[Any]) -> int:
    lengths = [len(v) for v in values if isinstance(v, (Sequence, np.ndarray)) and not isinstance(v, str)]
    if not lengths:
        raise ValueError("say how many `steps`, or give a sequence")
    return max(lengths)


def _at(values: Values, number: int) -> Any:
    if callable(values):
        return values(number)
    if isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, str):
        value = values[number - 1] if number <= len(values) else None
        return value.item() if isinstance(value, np.generic) else value
    return values


def _columns(columns: Mapping[str, Any], number: int, shape: Layout) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, given in columns.items():
        width = len(shape.layers if name.startswith("activations.") else shape.parameters)
        row = column(_row(given, number), width)
        if name.startswith("activations."):
            result.setdefault("activations", {})[name.partition(".")[2]] = row
        else:
            result[name] = row
    return result


def _row(given: Any, number: int) -> Any:
    if callable(given):
        return given(number)
    nested = isinstance(given, (Sequence, np.ndarray)) and len(given) and not np.isscalar(given[0])
    return given[number - 1] if nested and given[0] is not None else given


def column(row: Any, width: int) -> Column:
    """A float32 column; None entries are not measured, a number is repeated."""
    if isinstance(row, (int, float)):
        return np.full(width, row, np.float32)
    result = missing_column(width)
    for i, value in enumerate(row):
        if value is not None:
            result[i] = value
    return result


def _finite(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _interval(index: int, steps: Sequence[Step], *, epoch_ends: bool, given: Mapping[str, Any]) -> Interval:
    losses = _finite(s.loss for s in steps)
    times = _finite(s.step_time_s for s in steps)
    waits = _finite(s.wait_time_s for s in steps)
    samples = [s.samples for s in steps if s.samples is not None]
    busy = sum(times)  # waiting included, as the recorder writes it
    norms, ratios = _finite(s.grad_norm for s in steps), _finite(s.update_ratio for s in steps)
    made = Interval(
        index=index, first_step=steps[0].step, last_step=steps[-1].step, steps=len(steps),
        epoch=steps[-1].epoch, time_s=steps[-1].time_s, closed_by="epoch" if epoch_ends else "steps",
        duration_s=busy, busy_s=busy or None,
        loss_mean=float(np.mean(losses)) if losses else None,
        loss_std=float(np.std(losses)) if losses else None,
        loss_min=min(losses, default=None), loss_max=max(losses, default=None),
        lr_max=max((max(s.lr) for s in steps if s.lr), default=None),
        grad_norm_median=float(np.median(norms)) if norms else None,
        update_ratio_median=float(np.median(ratios)) if ratios else None,
        samples=sum(samples) if samples else None,
        steps_per_s=len(steps) / busy if busy else None,
        samples_per_s=sum(samples) / busy if samples and busy else None,
        step_time_median_s=float(np.median(times)) if times else None,
        wait_share=sum(waits) / busy if waits and busy else None,
    )  # fmt: skip
    return dataclasses.replace(made, **{k: _at(v, index + 1) for k, v in given.items()})


def _epoch(steps: Sequence[Step], evals: Sequence[Eval]) -> Epoch:
    losses = _finite(s.loss for s in steps)
    return Epoch(
        epoch=steps[-1].epoch or 0, step=steps[-1].step, steps=len(steps), time_s=steps[-1].time_s,
        duration_s=sum(_finite(s.step_time_s for s in steps)),
        loss_mean=float(np.mean(losses)) if losses else None,
        metrics={k: v for e in evals for k, v in e.metrics.items()},
    )  # fmt: skip
