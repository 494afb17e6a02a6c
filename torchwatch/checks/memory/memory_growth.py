"""The process's memory keeps growing.

What it detects
    Resident memory at the ends of intervals, and at first at every reading between them, after warm-up: it
    grew by more than 25 % and 256 MB; since it began to, its Theil–Sen slope is positive beyond doubt, each
    third of the readings lies above the one before, and every third has grown itself. In the first twelve
    intervals every third has grown by a quarter of the whole: a leak goes on as it began, memory that
    settles does not.

Why it matters
    It ends with the process killed, usually hours later and without a message.

What to do
    Keep numbers, not tensors: ``loss.item()`` or ``loss.detach()``. A loss that is kept keeps its whole
    graph. Look at lists and dicts that are filled in the loop, at caches, and at loaders that keep what
    they decoded.

When it is fine
    Memory rises while allocators, caches and libraries settle: the first interval and the first 20 steps do
    not count. What rises and comes back, epoch after epoch, is no leak. Data
    that is cached or mapped into memory makes it rise for one epoch: until the first epoch is over this
    is an info, and afterwards only later epochs are judged. Where the process's own memory is known to have
    grown by less than half of it (the rest is files that are mapped, or shared), it is an info, too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
_SETTLING = 12
_WARM_UP_STEPS = 20


@dataclass(frozen=True)
class Limits:
    """When growth is reported. A guard at 0 is off.

    Attributes:
        growth: growth since warm-up (share).
        least_mb: guard: growth since warm-up (MB).
        warm_up_intervals: guard: first intervals that are left out (count).
        thirds: guard: least part of the growth within each third of the readings since it began (share); it
            also makes each third's median lie above the one before.
        early_thirds: guard: the same while fewer than 12 intervals were judged (share); memory that settles
            grows ever slower, a leak does not.
        returns: guard: quiet where memory had risen by this part of the growth before, and came back (share).
        confidence: guard: probability with which the Theil–Sen slope must be positive (share below 1).
        first_epoch: guard: 1 makes it an info within the first epoch, and leaves that out later (switch).
        unique: guard: least part of the growth that is the process's own memory, where known (share).
    """

    growth: float = 0.25
    least_mb: float = 256.0
    warm_up_intervals: int = 1
    thirds: float = 0.1
    early_thirds: float = 0.25
    returns: float = 0.5
    confidence: float = 0.99
    first_epoch: int = 1
    unique: float = 0.5


class _Readings(NamedTuple):
    """Resident memory (bytes) at steps, (n,) each, oldest first."""

    steps: npt.NDArray[np.int64]
    memory: Values


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    known = [i for i in history.intervals if i.rss_bytes is not None]
    start, judged, first_epoch = _warm_up(known, limits)
    every = _readings(history, known, few=judged < _SETTLING)
    since = int(np.searchsorted(every.steps, start, side="left"))
    rows = _Readings(every.steps[since:], every.memory[since:])
    if not judged or rows.steps.size < _LEAST:
        return NotReady(f"needs {_LEAST} readings after warm-up, {rows.steps.size if judged else 0} seen")
    memory = rows.memory
    grown = float(memory[-1] - memory[0])
    if grown <= limits.growth * memory[0] or grown <= limits.least_mb * _MB:
        return []
    began = int(np.flatnonzero(memory <= memory[0] + _NEAR * grown)[-1])
    if limits.returns and every.memory[: since + began].max(initial=0) > memory[0] + limits.returns * grown:
        return []
    share = limits.early_thirds if judged < _SETTLING else limits.thirds
    rising = _Readings(rows.steps[began:], memory[began:])
    if not _is_steady(rising, share, limits):
        return []
    mapped = _is_mapped(history, int(rows.steps[0]), limits)
    return [
        _finding(
            _onset(known, int(rising.steps[0]), limits), rows, limits, first_epoch=first_epoch, mapped=mapped
        )
    ]


def _finding(onset: int, rows: _Readings, limits: Limits, *, first_epoch: bool, mapped: bool) -> Finding:
    start, now = float(rows.memory[0]), float(rows.memory[-1])
    slope = statistics.theil_sen(rows.memory, rows.steps).slope
    return Finding(
        title=f"Memory grew by {size(now - start)} ({(now - start) / start:.0%}) and keeps growing",
        since_step=onset,
        detail=f"{size(start)} after warm-up, {size(now)} now: {size(slope)} per step."
        + (" The first epoch is not over: it may be the data itself." if first_epoch else "")
        + (" Most of it is mapped or shared, not this process's own." if mapped else ""),
        severity=Severity.INFO if first_epoch or mapped else Severity.WARNING,
        metric="rss_bytes",
        value=now,
        threshold=max(start * (1 + limits.growth), start + limits.least_mb * _MB),
    )


def _warm_up(known: Sequence[Interval], limits: Limits) -> tuple[int, int, bool]:
    """Where judging begins (step), over how many intervals by now, and whether the first epoch still runs."""
    rows = list(known[limits.warm_up_intervals :])
    running = bool(limits.first_epoch and rows and rows[-1].epoch is not None)
    if running:
        later = [i for i in rows if i.epoch is not None and i.epoch > 0]
        running, rows = not later, later or rows
    if limits.warm_up_intervals:
        rows = [i for i in rows if i.first_step > _WARM_UP_STEPS]
    return (rows[0].first_step - 1 if rows else 0), len(rows), running


def _readings(history: History, known: Sequence[Interval], *, few: bool) -> _Readings:
    """Readings at the ends of intervals; while those are few, those once a second between them too."""
    found = {s.step: s.rss_bytes for s in history.systems} if few else {}
    found |= {i.last_step: i.rss_bytes for i in known}
    steps = sorted(step for step, value in found.items() if value is not None)
    return _Readings(np.array(steps, np.int64), np.array([found[s] for s in steps], np.float64))


def _is_mapped(history: History, start: int, limits: Limits) -> bool:
    """Whether unique memory, which is read every ten seconds or more seldom, hardly grew with it."""
    read = [s for s in history.systems if s.uss_bytes is not None and s.step >= start]
    if not limits.unique or len(read) < _READINGS:
        return False
    grown = (read[-1].rss_bytes or 0) - (read[0].rss_bytes or 0)
    return grown > 0 and (read[-1].uss_bytes or 0) - (read[0].uss_bytes or 0) < limits.unique * grown


def _is_steady(rising: _Readings, share: float, limits: Limits) -> bool:
    """Whether it certainly rises, in every third of the readings: a step up that stays is no leak."""
    memory = rising.memory
    if memory.size < _LEAST and (limits.thirds or limits.confidence):
        return False
    slope = statistics.theil_sen(memory, rising.steps, limits.confidence or 0.95)
    if limits.confidence and not slope.low > 0:
        return False
    if not limits.thirds:
        return True
    cuts = [0, len(memory) // 3, 2 * len(memory) // 3, len(memory)]
    parts = [memory[a:b] for a, b in itertools.pairwise(cuts)]
    middles = [float(np.median(p)) for p in parts]
    at_thirds = np.interp(np.linspace(rising.steps[0], rising.steps[-1], 4), rising.steps, memory)
    least = max(share, limits.thirds) * (memory[-1] - memory[0])
    return middles[0] < middles[1] < middles[2] and bool(np.diff(at_thirds).min() >= least)


def _onset(known: Sequence[Interval], began: int, limits: Limits) -> int:
    """First step after memory last stood near its start; growth that reaches back into warm-up began at once.

    "Near" is within a twentieth of the whole growth: resident memory rises in jumps, under a steady leak too.
    What stood higher in the first interval than now, as at the end of an epoch, begins where its rise does.
    """
    memory = [i.rss_bytes or 0 for i in known]
    if memory[-1] <= memory[0]:
        return began + 1
    near = memory[0] + _NEAR * (memory[-1] - memory[0])
    last = max(place for place, value in enumerate(memory) if value <= near)
    return known[last + 1 if last >= max(1, limits.warm_up_intervals) else 0].first_step


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
