"""Training waits for data.

What it detects
    The share of step time spent waiting for the loader (only known with ``watch.batches``), over
    stretches of at least 20 steps, twice in a row. The first wait of the run is left out, because loaders
    start up once. A warning also leaves out the first wait of every epoch and the longest two percent.

Why it matters
    While it waits, the accelerator does nothing. It is the cheapest speed-up there is.

What to do
    More ``num_workers``, ``persistent_workers=True`` where every epoch starts slowly, ``pin_memory=True``
    with ``non_blocking=True`` copies, decoding and augmenting once instead of every time, a faster disk.

When it is fine
    Very short steps on data in memory: putting a batch of small tensors together takes a millisecond or
    two, which is a large share of a tiny model's step and still nothing to act on. So a wait counts only
    above an absolute time per step, and only when the run has lost some seconds in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import Interval

_LONGEST = 0.02
_REMEMBERED = 64


@dataclass(frozen=True)
class Limits:
    """When waiting is reported. A guard at 0 is off.

    Attributes:
        info: share of step time spent waiting from which it is an info (share).
        warning: share from which it is a warning (share).
        steps: least steps of a stretch (steps).
        stretches: guard: stretches in a row (count).
        info_wait_s: guard: least mean wait per step of an info (seconds).
        warning_wait_s: guard: least mean wait per step of a warning (seconds): batches of small tensors
            in memory are put together in 1–3 ms, and no loader setting makes that worth while.
        total_wait_s: guard: least waiting of the run so far (seconds).
        startup: guard: 1 leaves out the first wait of the run, and for warnings of every epoch (switch).
    """

    info: float = 0.1
    warning: float = 0.2
    steps: int = 20
    stretches: int = 2
    info_wait_s: float = 0.001
    warning_wait_s: float = 0.005
    total_wait_s: float = 2.0
    startup: int = 1


class _Wait(NamedTuple):
    """Waiting in a stretch: share of step time and mean seconds per step, in all and without start-ups."""

    share: float
    mean_s: float
    steady_share: float
    steady_s: float


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    needed = max(1, limits.stretches)
    stretches = _stretches(history.intervals[-_REMEMBERED:], max(1, limits.steps))
    if len(stretches) < needed:
        return NotReady(f"needs {needed} stretches of {limits.steps} steps")
    if _hardly_waits(history.intervals, stretches[needed - 1][0], limits):
        return []
    waits = [_wait(history, first, last, limits) for first, last in stretches[:needed]]
    level = min(_level(w, limits) for w in waits)
    if not level or waits[0] is None or _total(history) < limits.total_wait_s:
        return []
    since = stretches[needed - 1][0]
    for first, last in stretches[needed:]:
        if _level(_wait(history, first, last, limits), limits) < level:
            break
        since = first
    return [_finding(history, waits[0], level, since, limits)]


def _hardly_waits(intervals: Sequence[Interval], since: int, limits: Limits) -> bool:
    """Whether the intervals from a step on waited for less than half of what counts."""
    for interval in reversed(intervals):
        if interval.last_step < since:
            break
        if interval.wait_share is None or interval.wait_share >= limits.info / 2:
            return False
    return True


def _level(wait: _Wait | None, limits: Limits) -> int:
    """2 for a warning, 1 for an info, 0 for neither."""
    if wait is None:
        return 0
    if wait.steady_share >= limits.warning and wait.steady_s >= limits.warning_wait_s:
        return 2
    return int(wait.share >= limits.info and wait.mean_s >= limits.info_wait_s)


def _finding(history: History, wait: _Wait, level: int, since: int, limits: Limits) -> Finding:
    share = wait.steady_share if level == 2 else wait.share
    starts = wait.share > 2 * wait.steady_share
    return Finding(
        title=f"{share:.0%} of the step time is waiting for data",
        since_step=since,
        detail=f"{duration(wait.mean_s)} per step on average, {duration(_total(history))} so far."
        + (" Most of it is the start of every epoch: persistent_workers=True." if starts else ""),
        severity=Severity.WARNING if level == 2 else Severity.INFO,
        metric="wait_time_s",
        value=share,
        threshold=limits.warning if level == 2 else limits.info,
    )


def _stretches(intervals: Sequence[Interval], steps: int) -> list[tuple[int, int]]:
    """First and last step of stretches of whole intervals with so many steps, newest first."""
    result: list[tuple[int, int]] = []
    size, last = 0, None
    for interval in reversed(intervals):
        last = interval.last_step if last is None else last
        size += interval.steps
        if size >= steps:
            result.append((interval.first_step, last))
            size, last = 0, None
    return result


def _wait(history: History, first: int, last: int, limits: Limits) -> _Wait | None:
    """Step time includes the wait before it."""
    waits, times = history.series("wait_time_s"), history.series("step_time_s")
    steps, at, place = np.intersect1d(waits.steps, times.steps, return_indices=True)
    wait, time = waits.values[at], np.maximum(times.values[place], waits.values[at])
    inside = (steps >= first) & (steps <= last)
    if limits.startup:
        inside &= steps != history.first("wait_time_s", 1).steps[0]
    wait, time, steps = wait[inside], time[inside], steps[inside]
    if not wait.size or time.sum() <= 0:
        return None
    keep = np.ones(len(steps), np.bool_)
    if limits.startup:
        keep = ~np.isin(steps, _epoch_starts(history.intervals))
        longest = int(np.ceil(_LONGEST * len(steps)))
        keep[np.argsort(wait, kind="stable")[-longest:]] = False
    steady = float(wait[keep].sum() / time[keep].sum()) if time[keep].sum() > 0 else 0.0
    mean = float(wait[keep].mean()) if keep.any() else 0.0
    return _Wait(float(wait.sum() / time.sum()), float(wait.mean()), steady, mean)


def _epoch_starts(intervals: Sequence[Interval]) -> list[int]:
    return [i.last_step + 1 for i in intervals[-_REMEMBERED:] if i.closed_by == "epoch"]


def _total(history: History) -> float:
    """Seconds waited so far, start-up included."""
    return sum((i.wait_share or 0.0) * (i.busy_s or 0.0) for i in history.intervals)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.THROUGHPUT,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("wait_time_s", "step_time_s"),
    limits=Limits(),
    find=find,
    fix="Give the loader more workers, pin memory, and prepare the data once instead of in every epoch.",
    snippet="DataLoader(data, batch_size=64, num_workers=4, pin_memory=True, persistent_workers=True)",
)
