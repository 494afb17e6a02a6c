"""The GPU's memory is almost full.

What it detects
    The memory in use on a card of this process, of all processes together, is 92 % of it or more (a warning)
    or 97 % (critical), in every reading of five seconds. What PyTorch's allocator has reserved beyond its
    peak does not count where it is known: it would give that back.

Why it matters
    One longer batch, or a neighbour on the card, and training ends with "out of memory". Near the limit the
    allocator also frees its cache and asks again, which stops the device each time.

What to do
    A smaller batch with gradient accumulation, mixed precision, activation checkpointing, an optimizer with
    fewer states. Look for other processes on the card.

When it is fine
    A batch size that was tuned to the last megabyte, with inputs of one size: nothing grows, and it may go
    well to the end. Raise the limits then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import number_of, of_gpus, recent, used_gpus
from torchwatch.text import size

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import System


@dataclass(frozen=True)
class Limits:
    """When memory is short. A guard at 0 is off.

    Attributes:
        warning: share in use from which it is a warning (share).
        critical: share in use from which it is critical (share).
        seconds: guard: how long every reading must say so (seconds).
        cache: guard: 1 leaves out what the allocator reserved beyond its peak (switch).
    """

    warning: float = 0.92
    critical: float = 0.97
    seconds: float = 5.0
    cache: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the fullest card."""
    indices = used_gpus(history)
    if not indices:
        return NotReady("the model is not on a GPU")
    if _fullest(history.systems[-1], indices, limits)[0] < limits.warning:
        return []
    records = recent(history, limits.seconds)
    if records is None:
        return NotReady(f"needs {limits.seconds:g} s of readings")
    share = min(_fullest(r, indices, limits)[0] for r in records)
    if share < limits.warning:
        return []
    critical = share >= limits.critical
    _, index, total = _fullest(records[-1], indices, limits)
    retries = sum(i.alloc_retries or 0 for i in history.intervals[-2:])
    return [
        Finding(
            title=f"GPU {index} is {share:.0%} full",
            since_step=records[0].step,
            detail=f"Of {size(total)}."
            + (f" The allocator had to free its cache {retries} times lately." if retries else ""),
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            metric="gpus.memory_used_bytes",
            value=share,
            threshold=limits.critical if critical else limits.warning,
        )
    ]


def _fullest(record: System, indices: frozenset[int], limits: Limits) -> tuple[float, int, float]:
    """The largest share in use of a card, its index and its size (bytes)."""
    cards = of_gpus(record, indices)
    spare = 0.0
    reserved, peak = record.cuda_reserved_bytes, record.cuda_peak_bytes
    if limits.cache and cards and reserved is not None and peak is not None:
        spare = max(reserved - peak, 0) / len(cards)
    shares = [
        ((used - spare) / total, int(g["index"]), total)
        for g in cards
        if (used := number_of(g, "memory_used_bytes")) is not None
        and (total := number_of(g, "memory_total_bytes"))
    ]
    return max(shares, default=(0.0, 0, 0.0))


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.MEMORY,
    cause=Cause.OTHER,
    when=frozenset({On.SYSTEM}),
    reads=("gpus",),
    uses=("cuda_reserved_bytes", "cuda_peak_bytes", "alloc_retries"),
    limits=Limits(),
    find=find,
    fix="Use a smaller batch with accumulation, mixed precision or activation checkpointing.",
    snippet="x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)",
    resolve_after=10,
)
