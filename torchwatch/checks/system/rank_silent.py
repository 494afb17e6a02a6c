"""One rank's file stopped long before the others'.

What it detects
    Of the files of a distributed run, one ends at least 60 s before the last sign of life of the others, and
    without an end record that says "finished". A rank that hangs still writes about itself every second: a
    file that stops means that its process was killed, crashed, or lost its disk. The finding names the rank,
    its last step and its last time.

Why it matters
    The other ranks wait for it in their next collective, until a timeout ends the job; what they say then
    ("watchdog caught collective operation timeout") does not name the rank that went away.

What to do
    Look at that rank's own log and at its machine: memory (the kernel's out-of-memory killer leaves no
    message in Python), the scheduler's, the disk. Its run file shows memory and alerts up to its last second.

When it is fine
    Ranks that are taken away on purpose (elastic training), files that were copied at different times. Clocks
    of machines may differ by some seconds; by more than a minute they mislead this check. It looks when files
    are read, never live.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Scope, Severity
from torchwatch.text import duration, printable

if TYPE_CHECKING:
    from torchwatch.run import Run

_SYSTEM_S = 1.0


@dataclass(frozen=True)
class Limits:
    """When a rank counts as gone.

    Attributes:
        silent_s: least time between the end of its file and the last sign of the others (seconds).
    """

    silent_s: float = 60.0


def find(run: Run, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding: of the rank that went first."""
    ends = [_last_s(rank) for rank in run.ranks]
    if None in ends:
        return NotReady("a rank's header does not say when it began")
    known = [end for end in ends if end is not None]
    last = max(known)
    gone = [
        (end, rank)
        for end, rank in zip(known, run.ranks, strict=True)
        if not _finished(rank) and last - end >= limits.silent_s + _resolution_s(rank)
    ]
    if not gone:
        return []
    first, rank = min(gone, key=lambda pair: pair[0])
    others = len(gone) - 1
    step = int(rank.steps[-1]) if rank.steps.size else 0
    end = rank.end
    how = f"It {end.status}: {printable(end.error or '', 200)}" if end is not None else "It has no end record"
    return [
        Finding(
            title=f"Rank {rank.header.rank} fell silent {duration(last - first)} before the others",
            since_step=step,
            detail=f"Last step {step}, last record {duration(_own_s(rank))} into its run. {how}."
            + (f" {others} more went after it." if others else "")
            + _memory(rank),
            metric="time_s",
            value=last - first,
            threshold=limits.silent_s,
        )
    ]


def _finished(rank: Run) -> bool:
    return rank.end is not None and rank.end.status == "finished"


def _own_s(rank: Run) -> float:
    """When the last record was written (seconds from the start of this rank's run)."""
    times = rank.scalar("time_s").values
    last = [float(times[-1])] if times.size else [0.0]
    last += [
        records[-1].time_s for records in (rank.systems, rank.intervals, rank.evals, rank.logs) if records
    ]
    return max([*last, rank.end.time_s if rank.end is not None else 0.0])


def _last_s(rank: Run) -> float | None:
    """The same as seconds of the world's clock."""
    try:
        began = dt.datetime.fromisoformat(rank.header.time)
    except ValueError:
        return None
    return began.timestamp() + _own_s(rank)


def _resolution_s(rank: Run) -> float:
    """How late the last record that was kept may be: of a very long run only every n-th is."""
    every = rank.thinned.get("system", 1)
    return (every - 1) * _SYSTEM_S


def _memory(rank: Run) -> str:
    """What the rank's memory was at its end."""
    if not rank.systems or rank.systems[-1].rss_bytes is None:
        return ""
    return f" It held {rank.systems[-1].rss_bytes / 1e9:.1f} GB of memory."


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.END}),
    reads=(),
    scope=Scope.RUN,
    limits=Limits(),
    find=find,
    fix="Look at that rank's log and machine: was it killed for its memory, did its disk fill up?",
)
