"""GPU memory grows from interval to interval.

What it detects
    What PyTorch's allocator has given out on CUDA rises in five intervals in a row, by more than 5 % and
    64 MB together, and its peak rises with it. Of each interval the lowest reading counts, which is the one
    nearest to the end of a step, when activations are gone.

Why it matters
    It ends in "CUDA out of memory", hours later and in a line of code that is innocent.

What to do
    Something keeps tensors with their graphs: a ``loss`` that is summed up or put into a list without
    ``.item()``, outputs kept for a metric without ``.detach().cpu()``, hooks that store what they see,
    ``backward(retain_graph=True)``.

When it is fine
    A data set that is put on the GPU bit by bit, a replay buffer that fills, sequences that are made longer
    on purpose. Optimizer states and caches appear in the first intervals, which do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import Interval, System

_MB = 1_000_000
_LOOK_BACK = 32


@dataclass(frozen=True)
class Limits:
    """When growth is reported. A guard at 0 is off.

    Attributes:
        intervals: rises in a row (intervals).
        growth: growth over them (share).
        least_mb: guard: and at least so much (MB).
        warm_up_intervals: guard: first intervals that are left out (count).
        peak: guard: 1 asks that the peak rose with it (switch).
    """

    intervals: int = 5
    growth: float = 0.05
    least_mb: float = 64.0
    warm_up_intervals: int = 3
    peak: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about all devices together."""
    needed = max(1, limits.intervals)
    known = len(history.intervals) - limits.warm_up_intervals
    rows = history.intervals[-min(max(known, 0), _LOOK_BACK) :] if known > 0 else []
    rows = [i for i in rows if i.cuda_allocated_bytes is not None]
    if len(rows) <= needed:
        return NotReady(f"needs {needed + 1} intervals after warm-up, {len(rows)} seen")
    before, now = rows[-needed - 1].cuda_peak_bytes, rows[-1].cuda_peak_bytes
    if limits.peak and before is not None and now is not None and now <= before:
        return []
    levels = _levels(rows, history.systems)
    start = len(rows) - 1
    while start > 0 and levels[start - 1] < levels[start]:
        start -= 1
    grown = levels[-1] - levels[start]
    if len(rows) - 1 - start < needed:
        return []
    if grown <= limits.growth * levels[start] or grown <= limits.least_mb * _MB:
        return []
    per_step = grown / max(1, rows[-1].last_step - rows[start].last_step)
    return [
        Finding(
            title=f"GPU memory grew by {size(grown)} in {len(rows) - 1 - start} intervals",
            since_step=rows[start + 1].first_step,
            detail=f"{size(levels[start])} before, {size(levels[-1])} now: {size(per_step)} per step.",
            metric="cuda_allocated_bytes",
            value=float(levels[-1]),
            threshold=float(max(levels[start] * (1 + limits.growth), levels[start] + limits.least_mb * _MB)),
        )
    ]


def _levels(rows: Sequence[Interval], systems: Sequence[System]) -> list[int]:
    """The lowest reading of each interval, its own and those of the system records within it."""
    levels = [i.cuda_allocated_bytes or 0 for i in rows]
    at = len(rows) - 1
    for record in reversed(systems):
        while at >= 0 and record.step < rows[at].first_step:
            at -= 1
        if at < 0:
            break
        if record.step <= rows[at].last_step and record.cuda_allocated_bytes is not None:
            levels[at] = min(levels[at], record.cuda_allocated_bytes)
    return levels


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.MEMORY,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("cuda_allocated_bytes",),
    uses=("cuda_peak_bytes",),
    limits=Limits(),
    find=find,
    fix="Keep numbers, not tensors, from step to step: loss.item(), outputs.detach().cpu().",
    snippet="losses.append(loss.item())  # not: losses.append(loss)",
)
