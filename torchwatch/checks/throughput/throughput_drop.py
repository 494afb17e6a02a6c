"""Training has become slower.

What it detects
    In three intervals in a row and for at least 30 s the throughput is more than 20 % below the run's
    warm peak (largest running median of five intervals). It says which part of a step grew: waiting for
    data, a pass, the optimizer or what the host does in between, as far as they were timed.

Why it matters
    A run that slows down costs time and energy, and a steady slow-down is often a leak: a list, a graph
    or a hook that grows with every step.

What to do
    Waiting grew: look at the disk, the network, the loader's workers. Steps grew: look for other
    processes, for a throttled device, and for anything that is kept from step to step.

When it is fine
    On shared machines throughput comes and goes with the neighbours, so a drop must stand out of the
    run's own noise, and without a measured cause it is an info. A cause is measured when waiting for data
    took a larger share of the step than before, when the GPU slowed itself down (heat, power), when its
    memory ran short, or when steps grew longer all through the drop. Other batch sizes are not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch import statistics
from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import of_gpus, slowdowns, used_gpus
from torchwatch.text import duration, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import Interval

_MEDIAN_OF = 5
_STEADY_LEAST = 8
_PARTS = {"forward": "forward_share", "backward": "backward_share", "optimizer": "optimizer_share"}


@dataclass(frozen=True)
class Limits:
    """When a drop is reported. A guard at 0 is off.

    Attributes:
        drop: loss of throughput against the peak (share).
        intervals: intervals in a row (count).
        seconds: guard: what these must last together (seconds of step time).
        warm_up_steps: guard: intervals that begin within these first steps are left out (steps).
        least_steps: guard: intervals with fewer steps are left out (steps).
        batch_change: guard: intervals whose mean batch differs by more from the latest are left out
            (share).
        sigmas: guard: the drop must exceed so many robust standard deviations of the throughput before
            (σ).
        wait_share: growth of the waiting share that counts as a measured cause (share).
        steady_p: largest Mann–Kendall p-value of the growth of step time within the drop that counts as a
            measured cause (probability).
    """

    drop: float = 0.2
    intervals: int = 3
    seconds: float = 30.0
    warm_up_steps: int = 10
    least_steps: int = 5
    batch_change: float = 0.05
    sigmas: float = 3.0
    wait_share: float = 0.1
    steady_p: float = 1e-3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    if _is_fast(history, limits):
        return []
    rows = _comparable(history.intervals, limits)
    needed = max(1, limits.intervals)
    if len(rows) < _MEDIAN_OF + needed:
        return NotReady(f"needs {_MEDIAN_OF + needed} comparable intervals, {len(rows)} seen")
    by_samples = all(i.samples_per_s is not None for i in rows)
    unit = "samples_per_s" if by_samples else "steps_per_s"
    rates = np.array([getattr(i, unit) for i in rows], np.float64)
    middles = statistics.rolling_median(rates, _MEDIAN_OF)[_MEDIAN_OF - 1 :]
    best = int(np.argmax(middles))
    peak = float(middles[best])
    fine = np.flatnonzero(rates >= (1 - limits.drop) * peak)
    start = int(fine[-1]) + 1 if fine.size else 0
    slow = rows[start:]
    if len(slow) < needed or sum(i.busy_s or 0.0 for i in slow) < limits.seconds:
        return []
    now = float(np.median(rates[start:]))
    sigma = statistics.robust_sigma(rates[:start]) if start >= 3 else 0.0
    if peak - now < limits.sigmas * sigma:
        return []
    cause, measured = _cause(history, rows[best : best + _MEDIAN_OF], slow, limits)
    fallen = f"{number(now)} after {number(peak)} {unit.replace('_per_s', '/s')}"
    return [
        Finding(
            title=f"Throughput fell by {1 - now / peak:.0%}: {fallen}",
            since_step=slow[0].first_step,
            detail=cause,
            severity=Severity.WARNING if measured else Severity.INFO,
            metric=unit,
            value=now,
            threshold=(1 - limits.drop) * peak,
        )
    ]


def _is_fast(history: History, limits: Limits) -> bool:
    """Whether the last interval is as fast as any: what most looks end with, in a fraction of the time."""
    last = history.intervals[-1]
    if last.steps < limits.least_steps or len(history.intervals) <= 2 * _MEDIAN_OF + limits.intervals:
        return False
    unit = "steps_per_s" if last.samples_per_s is None else "samples_per_s"
    rates = history.interval_series(unit).values
    return bool(rates.size and rates[-1] >= (1 - limits.drop) * rates.max())


def _comparable(intervals: Sequence[Interval], limits: Limits) -> list[Interval]:
    """Intervals after warm-up with the latest one's batch size."""
    rows = [
        i for i in intervals
        if i.first_step > limits.warm_up_steps and i.steps >= limits.least_steps and i.steps_per_s is not None
    ]  # fmt: skip
    if not rows or not limits.batch_change or rows[-1].samples is None:
        return rows
    batch = rows[-1].samples / rows[-1].steps
    return [
        i for i in rows
        if i.samples is not None and abs(i.samples / i.steps - batch) <= limits.batch_change * batch
    ]  # fmt: skip


def _cause(
    history: History, before: Sequence[Interval], slow: Sequence[Interval], limits: Limits
) -> tuple[str, bool]:
    """Which part of a step grew, and whether a cause of that was measured."""
    step_before, step_now = _per_step(before), _per_step(slow)
    grown = f"A step takes {duration(step_now)}, {duration(step_before)} at the peak."
    waits = [i.wait_share for i in (*before, *slow) if i.wait_share is not None]
    if len(waits) == len(before) + len(slow):
        share_before, share_now = (
            float(np.median(part)) for part in (waits[: len(before)], waits[len(before) :])
        )
        more = share_now * step_now - share_before * step_before
        if share_now - share_before >= limits.wait_share and more >= (step_now - step_before) / 2:
            return f"{grown} Waiting for data grew from {share_before:.0%} to {share_now:.0%} of it.", True
    grown += _part(before, slow)
    if _throttled(history, slow):
        return f"{grown} The GPU slowed itself down meanwhile: see gpu-throttled.", True
    if sum(i.alloc_retries or 0 for i in slow) > 0 and not any(i.alloc_retries for i in before):
        return f"{grown} GPU memory is short: the allocator frees its cache again and again.", True
    times = [(i.busy_s or 0.0) / i.steps for i in slow]
    trend = statistics.mann_kendall(times)
    if len(times) >= _STEADY_LEAST and trend.z > 0 and trend.p < limits.steady_p:
        return f"{grown} Steps grow longer all the time, as if something were kept from step to step.", True
    return f"{grown} It is the step itself that grew; the cause was not measured.", False


def _part(before: Sequence[Interval], slow: Sequence[Interval]) -> str:
    """Which part of a step grew most, where the parts were timed."""
    step_before, step_now = _per_step(before), _per_step(slow)
    grown: dict[str, float] = {}
    for part, name in _PARTS.items():
        known = [[s for i in rows if (s := getattr(i, name)) is not None] for rows in (before, slow)]
        if not all(known):
            return ""
        old, new = (float(np.median(shares)) for shares in known)
        grown[part] = new * step_now - old * step_before
    grown["host"] = step_now - step_before - sum(grown.values())
    most = max(grown, key=lambda part: grown[part])
    words = {"host": "what the host does between the passes", "optimizer": "the optimizer's step"}
    return f" Most of it is {words.get(most, f'the {most} pass')} ({duration(grown[most])} more)."


def _throttled(history: History, slow: Sequence[Interval]) -> bool:
    """Whether a GPU of this process slowed itself down in most readings of the slow stretch."""
    indices = used_gpus(history)
    readings = [s for s in history.systems if s.step >= slow[0].first_step] if indices else []
    hits = sum(any(slowdowns(g) for g in of_gpus(s, indices)) for s in readings)
    return 2 * hits > len(readings)


def _per_step(rows: Sequence[Interval]) -> float:
    return float(np.median([(i.busy_s or 0.0) / i.steps for i in rows]))


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.THROUGHPUT,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("steps_per_s",),
    uses=("samples_per_s", "wait_share", "forward_share", "backward_share", "gpus", "alloc_retries"),
    limits=Limits(),
    find=find,
    fix="Look for other processes, a throttled device, a slow disk, and for anything kept from step to step.",
    snippet="losses.append(loss.item())  # a kept `loss` keeps its graph and slows everything down",
)
