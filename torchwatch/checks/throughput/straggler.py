"""One rank is slower than the others, and they wait for it.

What it detects
    In three intervals in a row a rank needs more than 1.33 times as long as the others (their median) for its
    own part of a step: everything but the backward pass, in which ranks wait for each other. That time must
    also be a tenth of a step or more. It names the rank and the part: waiting for data, the forward pass, the
    optimizer, or what the host does in between.

Why it matters
    The step times of all ranks are equal, because they wait in every backward pass: one slow rank slows all
    of them down, and nothing in their own numbers shows which.

What to do
    Waiting for data: the rank's disk, its shard, its workers. Forward pass: a GPU that is hot, shared or of
    another kind, or longer sequences on this rank. Host: logging, saving or evaluating on this rank alone
    (often rank 0) inside the step.

When it is fine
    Ranks with unequal work by design. Where ranks also wait for each other in the forward pass (FSDP, tensor
    parallel, synchronised batch norm) their own part is not known, and this check says so. A rank that is
    slow in the backward pass alone is not found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Scope, Severity
from torchwatch.text import duration

if TYPE_CHECKING:
    from torchwatch.records import Interval
    from torchwatch.run import Run

_PARTS = ("waiting for data", "the forward pass", "the optimizer", "what the host does in between")


@dataclass(frozen=True)
class Limits:
    """When a rank is a straggler. A guard at 0 is off.

    Attributes:
        factor: its own time over the median of the others (factor).
        intervals: intervals in a row (count).
        of_step: guard: least time that it needs beyond the others (share of a step).
    """

    factor: float = 1.33
    intervals: int = 3
    of_step: float = 0.1


class _Times(NamedTuple):
    """Seconds per step: ``parts`` (intervals, ranks, 4) in the order of ``_PARTS``, ``step`` (intervals,)."""

    first_steps: list[int]
    parts: npt.NDArray[np.float64]
    step: npt.NDArray[np.float64]


def find(run: Run, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding: the slowest rank."""
    together = _wait_together(run)
    if together is not None:
        return NotReady(together)
    times = _times(run)
    needed = max(1, limits.intervals)
    if len(times.step) < needed:
        return NotReady(
            f"needs {needed} intervals in which all ranks timed their passes, {len(times.step)} seen"
        )
    own = times.parts.sum(axis=2)
    others = np.stack([np.median(np.delete(own, r, axis=1), axis=1) for r in range(own.shape[1])], axis=1)
    slow = (own > limits.factor * others) & (own - others >= limits.of_step * times.step[:, None])
    streaks = [_longest(slow[:, rank]) for rank in range(own.shape[1])]
    lasting = [r for r, (start, end) in enumerate(streaks) if end - start >= needed]
    if not lasting:
        return []
    worst = max(lasting, key=lambda r: float((own - others)[slice(*streaks[r]), r].sum()))
    return [_finding(run, times, worst, slice(*streaks[worst]), limits)]


def _wait_together(run: Run) -> str | None:
    """Why the ranks may wait for each other outside of the backward pass."""
    layout = run.ranks[0].layout
    if run.header.device.get("shards") or (layout and "shards" in layout.coverage.get("gradients", "")):
        return "parameters are spread over the ranks, which wait for each other in every layer"
    if layout is not None and any(x.type == "SyncBatchNorm" for x in layout.layers):
        return "synchronised batch norms let the ranks wait for each other in the forward pass"
    return None


def _times(run: Run) -> _Times:
    """The intervals that end at the same steps on all ranks and know their passes there."""
    tables = [{i.last_step: i for i in rank.intervals if _is_timed(i)} for rank in run.ranks]
    common = sorted(set.intersection(*(set(t) for t in tables)))
    common = [s for s in common if len({t[s].first_step for t in tables}) == 1]
    parts = np.array([[_parts(t[s]) for t in tables] for s in common]).reshape(len(common), len(tables), 4)
    step = np.array([max(_step_s(t[s]) for t in tables) for s in common], np.float64)
    return _Times([tables[0][s].first_step for s in common], parts, step)


def _is_timed(interval: Interval) -> bool:
    return (
        bool(interval.busy_s) and interval.forward_share is not None and interval.backward_share is not None
    )


def _step_s(interval: Interval) -> float:
    """Mean time of a step, what watching took left out."""
    return (interval.busy_s or 0.0) * max(0.0, 1 - (interval.watch_share or 0.0)) / interval.steps


def _parts(interval: Interval) -> tuple[float, float, float, float]:
    """Seconds per step of each part. Waiting is a share of all time, the passes of the host's own."""
    step = _step_s(interval)
    wait = (interval.wait_share or 0.0) * (interval.busy_s or 0.0) / interval.steps
    forward, backward = (interval.forward_share or 0.0) * step, (interval.backward_share or 0.0) * step
    optimizer = (interval.optimizer_share or 0.0) * step
    return wait, forward, optimizer, max(0.0, step - wait - forward - backward - optimizer)


def _longest(flags: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last place of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    if not edges.size:
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    at = int((ends - starts).argmax())
    return int(starts[at]), int(ends[at])


def _finding(run: Run, times: _Times, rank: int, where: slice, limits: Limits) -> Finding:
    own = times.parts[where, rank]
    others = np.median(np.delete(times.parts[where], rank, axis=1), axis=1)
    more = np.median(own - others, axis=0)
    part = int(more.argmax())
    mine, theirs = float(own.sum(axis=1).mean()), float(others.sum(axis=1).mean())
    name = run.ranks[rank].header.rank
    return Finding(
        title=f"Rank {name} needs {mine / theirs:.1f} times as long as the others: {_PARTS[part]}"
        if theirs > 0
        else f"Rank {name} needs longer than the others: {_PARTS[part]}",
        since_step=times.first_steps[where.start],
        detail=f"{duration(mine)} of its own per step, {duration(theirs)} on the other ranks, in "
        f"{where.stop - where.start} intervals in a row; {_PARTS[part]} takes "
        f"{duration(max(float(more[part]), 0.0))} more.",
        metric="step_time_s",
        value=mine,
        threshold=limits.factor * theirs,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.THROUGHPUT,
    cause=Cause.OTHER,
    when=frozenset({On.END}),
    reads=("forward_share", "backward_share"),
    uses=("wait_share", "optimizer_share"),
    scope=Scope.RUN,
    limits=Limits(),
    find=find,
    fix="Look at this rank's disk, device and data, and at what only this rank does within a step.",
)
