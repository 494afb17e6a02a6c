"""The process's memory keeps growing.

What it detects
    Resident memory at the ends of intervals, after warm-up: it grew by more than 25 % and 256 MB, its
    Theil–Sen slope is positive beyond doubt, each third of the history lies above the one before, and
    every third has grown itself.

Why it matters
    It ends with the process killed, usually hours later and without a message.

What to do
    Keep numbers, not tensors: ``loss.item()`` or ``loss.detach()``. A loss that is kept keeps its whole
    graph. Look at lists and dicts that are filled in the loop, at caches, and at loaders that keep what
    they decoded.

When it is fine
    Memory rises while allocators, caches and libraries settle: the first intervals do not count. Data
    that is cached or mapped into memory makes it rise for one epoch: until the first epoch is over this
    is an info, and afterwards only later epochs are judged. Where the process's own memory is known to have
    grown by less than half of it (the rest is files that are mapped, or shared), it is an info, too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch import statistics
from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import Interval

Values = npt.NDArray[np.float64]

_LEAST = 6
_READINGS = 4
_MB = 1_000_000
_NEAR = 0.05


@dataclass(frozen=True)
class Limits:
    """When growth is reported. A guard at 0 is off.

    Attributes:
        growth: growth since warm-up (share).
        least_mb: guard: growth since warm-up (MB).
        warm_up_intervals: guard: first intervals that are left out (count).
        thirds: guard: least part of the whole growth within each third of the history (share); it also
            makes each third's median lie above the one before.
        confidence: guard: probability with which the Theil–Sen slope must be positive (share below 1).
        first_epoch: guard: 1 makes it an info within the first epoch, and leaves that out later (switch).
        unique: guard: least part of the growth that is the process's own memory, where known (share).
    """

    growth: float = 0.25
    least_mb: float = 256.0
    warm_up_intervals: int = 3
    thirds: float = 0.1
    confidence: float = 0.99
    first_epoch: int = 1
    unique: float = 0.5


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    known = [i for i in history.intervals if i.rss_bytes is not None]
    rows, first_epoch = _judged(known, limits)
    if len(rows) < _LEAST:
        return NotReady(f"needs {_LEAST} intervals after warm-up, {len(rows)} seen")
    memory = np.array([i.rss_bytes for i in rows], np.float64)
    grown = memory[-1] - memory[0]
    if grown <= limits.growth * memory[0] or grown <= limits.least_mb * _MB:
        return []
    ends = np.array([i.last_step for i in rows], np.float64)
    slope = statistics.theil_sen(memory, ends, limits.confidence or 0.95)
    if (limits.confidence and not slope.low > 0) or not _is_steady(memory, grown, limits):
        return []
    onset = _onset(known, limits)
    mapped = _is_mapped(history, rows, limits)
    return [
        Finding(
            title=f"Memory grew by {size(grown)} ({grown / memory[0]:.0%}) and keeps growing",
            since_step=onset,
            detail=f"{size(memory[0])} after warm-up, {size(memory[-1])} now: {size(slope.slope)} per step."
            + (" The first epoch is not over: it may be the data itself." if first_epoch else "")
            + (" Most of it is mapped or shared, not this process's own." if mapped else ""),
            severity=Severity.INFO if first_epoch or mapped else Severity.WARNING,
            metric="rss_bytes",
            value=float(memory[-1]),
            threshold=float(max(memory[0] * (1 + limits.growth), memory[0] + limits.least_mb * _MB)),
        )
    ]


def _judged(known: Sequence[Interval], limits: Limits) -> tuple[list[Interval], bool]:
    """Intervals after warm-up and the first epoch, and whether that is still running."""
    rows = list(known[limits.warm_up_intervals :])
    if not limits.first_epoch or not rows or rows[-1].epoch is None:
        return rows, False
    later = [i for i in rows if i.epoch is not None and i.epoch > 0]
    return (later, False) if later else (rows, True)


def _is_mapped(history: History, rows: Sequence[Interval], limits: Limits) -> bool:
    """Whether unique memory, which is read every ten seconds or more seldom, hardly grew with it."""
    read = [s for s in history.systems if s.uss_bytes is not None and s.step >= rows[0].first_step]
    if not limits.unique or len(read) < _READINGS:
        return False
    grown = (read[-1].rss_bytes or 0) - (read[0].rss_bytes or 0)
    return grown > 0 and (read[-1].uss_bytes or 0) - (read[0].uss_bytes or 0) < limits.unique * grown


def _is_steady(memory: Values, grown: float, limits: Limits) -> bool:
    """Whether every third lies above the one before and grew itself: a step up that stays is no leak."""
    if not limits.thirds:
        return True
    cuts = [0, len(memory) // 3, 2 * len(memory) // 3, len(memory)]
    parts = [memory[a:b] for a, b in itertools.pairwise(cuts)]
    middles = [float(np.median(p)) for p in parts]
    rises = [memory[b - 1] - memory[max(a - 1, 0)] for a, b in itertools.pairwise(cuts)]
    return middles[0] < middles[1] < middles[2] and min(rises) >= limits.thirds * grown


def _onset(known: Sequence[Interval], limits: Limits) -> int:
    """First step after memory last stood near its start; growth that reaches back into warm-up began at once.

    "Near" is within a twentieth of the whole growth: resident memory rises in jumps, under a steady leak too.
    """
    memory = [i.rss_bytes or 0 for i in known]
    near = memory[0] + _NEAR * (memory[-1] - memory[0])
    last = max(place for place, value in enumerate(memory) if value <= near)
    return known[last + 1 if last >= limits.warm_up_intervals else 0].first_step


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.MEMORY,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("rss_bytes",),
    uses=("uss_bytes",),
    limits=Limits(),
    find=find,
    fix="Keep numbers, not tensors, from step to step: loss.item(), outputs.detach().cpu().",
    snippet="total += loss.item()  # not: total += loss",
)
