"""One interval took much longer than the others.

What it detects
    The time per sample (per step where samples are not known) of the last interval is more than 1.5 times the
    median of at least four comparable ones before it, and that cost at least a second. Evaluation is not in
    that time.

Why it matters
    Once is a hiccup: a garbage collection, a neighbour, a slow file. Again and again it is a pattern, and the
    step numbers show which.

What to do
    Look what happens at those steps: saving, logging of images, a slow shard of the data, other jobs on the
    machine. `throughput-drop` speaks when it does not get better.

When it is fine
    A checkpoint that is saved inside the interval, a profiler window, a recompilation. Intervals with another
    batch size are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import Interval

_REMEMBERED = 32


@dataclass(frozen=True)
class Limits:
    """When an interval counts as slow. A guard at 0 is off.

    Attributes:
        factor: time per sample over the median of the intervals before (factor).
        intervals: least intervals before it (count).
        warm_up_steps: guard: intervals that begin within these first steps are left out (steps).
        least_steps: guard: intervals with fewer steps are left out (steps).
        least_s: guard: what it must have cost beyond the median (seconds).
        batch_change: guard: intervals whose mean batch differs by more are not compared (share).
    """

    factor: float = 1.5
    intervals: int = 4
    warm_up_steps: int = 10
    least_steps: int = 5
    least_s: float = 1.0
    batch_change: float = 0.05


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the last interval."""
    last = history.intervals[-1]
    if last.busy_s is None or last.steps < limits.least_steps or last.first_step <= limits.warm_up_steps:
        return NotReady("the last interval is too short, or the first")
    before = _comparable(history.intervals[-_REMEMBERED - 1 : -1], last, limits)
    if len(before) < limits.intervals:
        return NotReady(f"needs {limits.intervals} comparable intervals before the last, {len(before)} seen")
    median = float(np.median([_per_unit(i, last) for i in before]))
    now = _per_unit(last, last)
    lost = last.busy_s * (1 - median / now) if now > 0 else 0.0
    if now <= limits.factor * median or lost < limits.least_s:
        return []
    unit = "step" if last.samples is None else "sample"
    return [
        Finding(
            title=f"Steps {last.first_step} to {last.last_step} took {now / median:.1f} times the usual time",
            since_step=last.first_step,
            detail=f"{duration(now)} per {unit}, {duration(median)} in the {len(before)} intervals before: "
            f"{duration(lost)} lost." + _part(before, last),
            metric="busy_s",
            value=now,
            threshold=limits.factor * median,
        )
    ]


def _comparable(intervals: Sequence[Interval], last: Interval, limits: Limits) -> list[Interval]:
    rows = [
        i for i in intervals
        if i.busy_s is not None and i.steps >= limits.least_steps and i.first_step > limits.warm_up_steps
    ]  # fmt: skip
    if last.samples is None or not limits.batch_change:
        return rows
    batch = last.samples / last.steps
    return [
        i for i in rows
        if i.samples is not None and abs(i.samples / i.steps - batch) <= limits.batch_change * batch
    ]  # fmt: skip


def _per_unit(interval: Interval, last: Interval) -> float:
    """Seconds per sample, per step where the last interval does not know its samples."""
    count = interval.steps if last.samples is None else interval.samples
    return (interval.busy_s or 0.0) / max(1, count or 0)


def _part(before: Sequence[Interval], last: Interval) -> str:
    """Whether it was waiting for data, where that is known."""
    shares = [i.wait_share for i in before if i.wait_share is not None]
    if last.wait_share is None or not shares:
        return ""
    usual = float(np.median(shares))
    return f" {last.wait_share:.0%} of it was waiting for data, {usual:.0%} usually."


CHECK = Check(
    severity=Severity.INFO,
    category=Category.THROUGHPUT,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("busy_s",),
    uses=("samples", "wait_share"),
    limits=Limits(),
    find=find,
    fix="Look what else happens at these steps: saving, logging, a slow part of the data, other jobs.",
    resolve_after=1,
)
