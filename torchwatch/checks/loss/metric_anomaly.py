"""Loss, gradient, throughput and memory together are as they never were before.

What it detects
    For every interval the logarithms of mean loss, median gradient norm, throughput and memory are compared
    with what the intervals before it lead to expect. Together the four surprises of the last interval are so
    far from those of at least 30 intervals before it (robust Mahalanobis distance) that chance gives less
    than one in a million, and one of them is worse than it ever was.

Why it matters
    Something changed in this interval that no single number shows clearly: another kind of data, another
    process on the machine, a setting.

What to do
    Look at the named metrics around the named step, and at what else happened then.

When it is fine
    A change that was made on purpose. Nothing is said where a specific check would speak (the loss doubled,
    throughput fell by a fifth, memory grew by a quarter), nor where the learning rate changed. It is never
    more than a note.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Values
from torchwatch.history import History
from torchwatch.statistics import mahalanobis, middle
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.records import Interval

_LEAD = 5
_STEADY = 0.1
_NOTABLE = 3.0


class _Metric(NamedTuple):
    """A coordinate: its words, its field in an interval, which way is worse, and whose business a jump is."""

    words: str
    fields: tuple[str, ...]
    worse: int
    specific: float


_METRICS = (
    _Metric("loss", ("loss_mean",), 1, math.log(2)),
    _Metric("gradient norm", ("grad_norm_median",), 1, math.log(10)),
    _Metric("throughput", ("samples_per_s", "steps_per_s"), -1, math.log(1 / 0.8)),
    _Metric("memory", ("cuda_allocated_bytes", "rss_bytes"), 1, math.log(1.25)),
)


@dataclass(frozen=True)
class Limits:
    """When an interval is an anomaly. A guard at 0 is off.

    Attributes:
        p: largest probability of so large a distance by chance (share).
        intervals: intervals before it to compare with (intervals).
        most_intervals: intervals that are compared with at most (intervals).
        least_sigma: guard: smallest σ of a logarithm, because memory often stands still (natural logarithm).
        specific: guard: 1 says nothing where a jump is large enough for a check of its own (switch).
        unseen: guard: 1 asks that a metric is further to its worse side than in any interval before
            (switch).
        lr: guard: 1 says nothing where the learning rate changed by more than 10 % (switch).
    """

    p: float = 1e-6
    intervals: int = 30
    most_intervals: int = 63
    least_sigma: float = 0.02
    specific: int = 1
    unseen: int = 1
    lr: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the last interval."""
    steps = history.interval_series("steps").values[1:][-limits.most_intervals - _LEAD - 1 :]
    if not steps.size or 2 * steps[-1] < (typical := middle(steps)):
        return [] if steps.size else NotReady("needs an interval after the first")
    full = 2 * steps >= typical
    table = [(metric, row) for metric in _METRICS if (row := _logs(history, metric, full)) is not None]
    count = int(full.sum()) - _LEAD - 1
    if len(table) < 2:
        return NotReady("fewer than two of loss, gradient norm, throughput and memory in every interval")
    if count < max(limits.intervals, 1):
        return NotReady(f"needs {limits.intervals} intervals to compare with, {max(0, count)} seen")
    if limits.lr and _lr_changed(history):
        return []
    if limits.unseen and not any(_stands_out(row, m.worse, limits) for m, row in table):
        return []
    surprises = np.array([_surprises(row) for _, row in table]).T
    return _judge(history.intervals[-1], [metric for metric, _ in table], surprises, limits)


def _logs(history: History, metric: _Metric, full: npt.NDArray[np.bool_]) -> Values | None:
    """The metric's logarithm in the last intervals that are ``full``; None where one of them lacks it."""
    oldest = history.intervals[-full.size].last_step
    for field in metric.fields:
        steps, values = history.interval_series(field)
        if steps.size >= full.size and steps[-full.size] == oldest:
            part = values[-full.size :][full]
            if np.isfinite(part).all() and part.min() > 0:
                return np.log(part)
    return None


def _lr_changed(history: History) -> bool:
    rates = [i.lr_max for i in history.intervals[-3:] if i.lr_max is not None]
    return bool(rates) and (min(rates) <= 0 or math.log(max(rates) / min(rates)) > _STEADY)


def _stands_out(row: Values, worse: int, limits: Limits) -> bool:
    """Whether the last value is clearly worse than each of the five before: else it is no surprise."""
    return bool(((row[-1] - row[-_LEAD - 1 : -1]) * worse).min() > limits.least_sigma)


def _surprises(row: Values) -> Values:
    """Each value less the median of the five before it, which one odd interval does not move."""
    before = np.lib.stride_tricks.sliding_window_view(row, _LEAD)[:-1]
    surprises: Values = row[_LEAD:] - np.median(before, axis=1)
    return surprises


def _judge(interval: Interval, metrics: list[_Metric], surprises: Values, limits: Limits) -> list[Finding]:
    now, before = surprises[-1], surprises[:-1]
    worse = np.array([m.worse for m in metrics])
    if limits.specific and (now * worse > [m.specific for m in metrics]).any():
        return []
    unseen = now * worse > (before * worse).max(axis=0)
    if limits.unseen and not unseen.any():
        return []
    found = mahalanobis(now, before, limits.least_sigma)
    loud = found.scores * worse > _NOTABLE
    if not found.p < limits.p or (limits.unseen and not (unseen & loud).any()):
        return []
    order = np.argsort(-np.abs(found.scores))
    named = [metrics[i].words for i in order if abs(found.scores[i]) > _NOTABLE] or [metrics[order[0]].words]
    parts = ", ".join(
        f"{m.words} {100 * math.expm1(float(now[i])):+.3g} % ({found.scores[i]:+.1f} σ)"
        for i, m in enumerate(metrics)
    )
    return [
        Finding(
            title=f"Unusual interval from step {interval.first_step}: {' and '.join(named)}",
            since_step=interval.first_step,
            detail=f"Against what the intervals before lead to expect: {parts}. Chance: {number(found.p)}.",
            metric=named[0],
            value=math.sqrt(found.squared),
            fix=f"Look at {' and '.join(named)} around step {interval.first_step}, and what changed there.",
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("loss",),
    uses=("grad_norm", "samples_per_s", "steps_per_s", "rss_bytes", "cuda_allocated_bytes", "lr"),
    limits=Limits(),
    find=find,
    fix="Look at the named metrics around the named step, and at what else changed there.",
    resolve_after=2,
)
