"""The run stays below the baseline that was declared.

What it detects
    ``declare={"baseline": {"val_accuracy": 0.93, "parameters": 1.2e6}}``: the best value of a metric so far
    is less than 0.9 times the baseline's (for errors and losses, more than the baseline divided by 0.9). Or
    the model has more than twice the baseline's parameters.

Why it matters
    What a simpler or an earlier model reached is the least that is possible on this data.

What to do
    Compare the two runs: data, preprocessing, learning rate, length. A model that is larger and worse needs
    another training, not another layer.

When it is fine
    Before training is over: as long as the metric improves and the declared ``planned_steps`` are not done,
    it is only noted, and before five evaluations nothing is said. More parameters are only noted too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._metrics import lower_is_better, tail
from torchwatch.history import History
from torchwatch.text import number, printable

_SIZE = "parameters"
_ALMOST = 0.98


@dataclass(frozen=True)
class Limits:
    """When a run stays below its baseline. A guard at 0 is off.

    Attributes:
        share: smallest share of the baseline's metric (share).
        size: largest multiple of the baseline's parameters (ratio).
        evals: guard: evaluations with the metric before anything is said of it (evaluations).
        patience: guard: a warning takes as many evaluations after the best, or the end of the declared
            ``planned_steps`` (evaluations).
    """

    share: float = 0.9
    size: float = 2.0
    evals: int = 5
    patience: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding about a metric, and one about the model's size."""
    baseline = history.declared.get("baseline")
    if baseline is None:
        return NotReady("no baseline was declared")
    if not isinstance(baseline, Mapping):
        return NotReady('the baseline is no map of names to numbers, such as {"val_accuracy": 0.93}')
    numbers = {
        str(name): float(value)
        for name, value in baseline.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    metrics = [_of_metric(history, n, v, limits) for n, v in numbers.items() if n != _SIZE]
    below = [f for f in metrics if f is not None]
    worst = [max(below, key=lambda f: f.severity or Severity.INFO)] if below else []
    size = _of_size(history, numbers.get(_SIZE), limits)
    return worst if size is None else [*worst, size]


def _of_metric(history: History, name: str, baseline: float, limits: Limits) -> Finding | None:
    series = tail(history.eval_series(name))
    if series.values.size < max(1, limits.evals):
        return None
    lower = lower_is_better(name)
    best = int(series.values.argmin() if lower else series.values.argmax())
    value = float(series.values[best])
    distance = (1 / limits.share - 1 if lower else 1 - limits.share) * abs(baseline)
    threshold = baseline + distance if lower else baseline - distance
    if value <= threshold if lower else value >= threshold:
        return None
    since = series.values.size - 1 - best
    planned = history.declared.get("planned_steps")
    over = isinstance(planned, (int, float)) and history.step >= _ALMOST * planned
    waits = limits.patience and since < limits.patience and not over
    shown, reached, now = printable(name, 60), int(series.steps[best]), float(series.values[-1])
    return Finding(
        title=f"Best {shown} is {number(value)}, the baseline's {number(baseline)}",
        since_step=reached,
        detail=f"Reached at step {reached}, {since} evaluations ago; now {number(now)}."
        + (" Only noted, because it may still improve." if waits else ""),
        severity=Severity.INFO if waits else Severity.WARNING,
        metric=shown,
        value=value,
        threshold=threshold,
    )


def _of_size(history: History, baseline: float | None, limits: Limits) -> Finding | None:
    if baseline is None or baseline <= 0 or not limits.size or history.layout is None:
        return None
    count = sum(int(np.prod(p.shape)) for p in history.layout.parameters)
    if count <= limits.size * baseline:
        return None
    return Finding(
        title=f"The model has {count / baseline:.3g} times the baseline's parameters",
        since_step=0,
        detail=f"{count:,} here, {baseline:,.0f} there.",
        severity=Severity.INFO,
        layer="",
        metric=_SIZE,
        value=float(count),
        threshold=limits.size * baseline,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOSS,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT, On.EVAL}),
    reads=(),
    limits=Limits(),
    find=find,
    fix="Compare with the baseline's run: data, preprocessing, learning rate and length, then the model.",
    snippet="torchwatch compare baseline.jsonl this.jsonl\n",
    resolve_after=1,
)
