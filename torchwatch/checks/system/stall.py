"""Training hangs: no step, the main thread does not move, nothing computes.

What it detects
    No step for at least 60 s and ten times the usual step, while the main thread is at the same place in 30
    readings and neither this process nor its GPU does anything. A process that computes, reads or writes
    without taking a step is probably evaluating or saving: that is an info after ten minutes.

Why it matters
    A hung run holds its machine for hours and says nothing. Loader workers that wait for each other, a
    collective that one rank never enters, a lock, a network file system that went away look like this.

What to do
    See where it hangs: ``py-spy dump --pid …`` prints the stacks of all threads of a running process without
    stopping it. With loader workers: try ``num_workers=0``, give the loader a ``timeout``. With several
    ranks: the one that hangs elsewhere is the cause.

When it is fine
    A debugger, a notebook or a question that waits for you: nothing in the records tells it from a hang. So
    does a wait for another process that computes elsewhere; where other processes of this machine work, or
    data flows, it is not called a hang. Pauses as long as earlier ones of the run are not reported, and ranks
    that wait for each other have ten minutes. A GPU that spins in a collective looks busy: then this stays an
    info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import number_of, of_gpus, used_gpus
from torchwatch.text import duration, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import System

_STEPS = 512
_MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """When a run counts as hung. A guard at 0 is off.

    Attributes:
        wait_s: least time without a step (seconds).
        steps: and at least so many median steps long (count).
        samples: readings in a row with the main thread at the same place (count).
        cpu_percent: from this much of one core on the process counts as busy (percent).
        gpu_percent: from this much utilisation on its GPU counts as busy (percent).
        busy_s: time without a step of a busy process that is worth an info (seconds).
        ranks_s: guard: least time without a step where several ranks may wait for each other (seconds).
        other_cores: guard: so many cores busy with other processes: it may wait for one of them (cores).
        io_mb_s: guard: so much read, written and sent by the machine: it may load or save (MB/s).
        pauses: guard: least time without a step, in longest pauses between steps so far (count).
    """

    wait_s: float = 60.0
    steps: float = 10.0
    samples: int = 30
    cpu_percent: float = 10.0
    gpu_percent: float = 10.0
    busy_s: float = 600.0
    ranks_s: float = 600.0
    other_cores: float = 0.5
    io_mb_s: float = 10.0
    pauses: float = 2.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    last = history.systems[-1]
    since = last.since_step_s
    if since is None or since < min(limits.wait_s, limits.busy_s):
        return []
    times = history.series("step_time_s", _STEPS).values
    median = float(np.median(times)) if times.size else 0.0
    least = max(limits.steps * median, limits.pauses * _longest_pause(history))
    hung = max(least, limits.wait_s, limits.ranks_s if history.header.world > 1 else 0.0)
    if since >= hung and len(history.systems) >= limits.samples:
        records = history.systems[-max(1, limits.samples) :]
        why = _busy_with(history, records, limits)
        if why is None:
            return [_hung(history, records, since, hung)]
    if since >= max(least, limits.busy_s):
        why = _busy_with(history, history.systems[-max(1, limits.samples) :], limits)
        return [_busy(history, since, max(least, limits.busy_s), why)]
    return []


def _longest_pause(history: History) -> float:
    """The longest time between the ends of two steps (seconds)."""
    ends = history.series("time_s").values
    return float(np.diff(ends).max()) if ends.size > 1 else 0.0


def _busy_with(history: History, records: Sequence[System], limits: Limits) -> str | None:
    """Why this may be no hang; None where nothing moves at all."""
    if records[-1].stack is None or any(r.stack != records[-1].stack for r in records):
        return "the main thread moves on"
    own = _mean([r.cpu_percent for r in records])
    if own >= limits.cpu_percent:
        return f"the process uses {own:.0f} % of a core"
    indices = used_gpus(history)
    used = [number_of(g, "utilization_percent") for r in records for g in of_gpus(r, indices)]
    if _mean(used) >= limits.gpu_percent:
        return f"its GPU is busy for {_mean(used):.0f} % of the time"
    cores = history.header.device.get("cpus")
    machine = _mean([r.machine_cpu_percent for r in records])
    if limits.other_cores and isinstance(cores, int):
        others = (machine * cores - own) / 100
        if others >= limits.other_cores:
            return f"other processes use {others:.1f} cores"
    rate = _traffic(records)
    if limits.io_mb_s and rate >= limits.io_mb_s * _MB:
        return f"the machine moves {size(rate)}/s to and from disk and network"
    return None


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else 0.0


def _traffic(records: Sequence[System]) -> float:
    """Bytes per second to and from disks and network; each record counts since the one before."""
    seconds = records[-1].time_s - records[0].time_s
    moved = sum(
        count or 0
        for r in records[1:]
        for count in (r.disk_read_bytes, r.disk_write_bytes, r.net_sent_bytes, r.net_received_bytes)
    )
    return moved / seconds if seconds > 0 else 0.0


def _hung(history: History, records: Sequence[System], since: float, threshold: float) -> Finding:
    return Finding(
        title=f"No step for {duration(since)}: training hangs",
        since_step=history.step,
        detail=f"The main thread was at the same place (stack {records[-1].stack}) in the last "
        f"{len(records)} readings, with {_mean([r.cpu_percent for r in records]):.1f} % of a core in use.",
        metric="since_step_s",
        value=since,
        threshold=threshold,
        snippet=f"py-spy dump --pid {history.header.pid}" if history.header.pid else None,
    )


def _busy(history: History, since: float, threshold: float, why: str | None) -> Finding:
    return Finding(
        title=f"No step for {duration(since)}",
        since_step=history.step,
        detail=f"It may evaluate or save: {why}." if why else "Nothing was seen to move.",
        severity=Severity.INFO,
        metric="since_step_s",
        value=since,
        threshold=threshold,
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.SYSTEM}),
    reads=("since_step_s", "stack"),
    uses=("cpu_percent", "machine_cpu_percent", "gpus", "step_time_s"),
    limits=Limits(),
    find=find,
    fix="See with py-spy where it hangs; try num_workers=0; of several ranks find the one that is elsewhere.",
    snippet="py-spy dump --pid <pid of the training>",
    resolve_after=1,
)
