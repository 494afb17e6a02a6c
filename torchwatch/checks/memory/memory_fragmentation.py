"""The CUDA allocator holds twice the memory that was ever in use.

What it detects
    Reserved memory is at least twice the peak of what was allocated, and above 2 GB. Compared is the peak,
    not what is allocated at the moment: between two steps activations are gone and their memory is kept for
    the next ones, as it should be.

Why it matters
    The reserved blocks have sizes that nobody asks for any more. Training runs out of memory with gigabytes
    free.

What to do
    ``PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`` before the start; fewer different sizes (pad to a few
    lengths); ``torch.cuda.empty_cache()`` after a phase with other sizes, never in every step.

When it is fine
    After a phase with larger tensors whose peak was reset by the host
    (``torch.cuda.reset_peak_memory_stats``): the largest peak that was recorded counts, not the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, On, Severity
from torchwatch.text import size

if TYPE_CHECKING:
    from torchwatch.history import History

_GB = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """When fragmentation is reported. A guard at 0 is off.

    Attributes:
        factor: reserved memory over the peak of allocated memory (factor).
        least_gb: guard: reserved memory above which it counts (GB).
    """

    factor: float = 2.0
    least_gb: float = 2.0


def find(history: History, limits: Limits) -> list[Finding]:
    """At most one finding, about all devices together."""
    last = history.intervals[-1]
    reserved = last.cuda_reserved_bytes
    if reserved is None or reserved <= limits.least_gb * _GB or last.cuda_peak_bytes is None:
        return []
    if reserved < limits.factor * last.cuda_peak_bytes:
        return []
    peak = max(i.cuda_peak_bytes or 0 for i in history.intervals)
    if not peak or reserved < limits.factor * peak:
        return []
    return [
        Finding(
            title=f"{size(reserved)} of GPU memory is reserved, {size(peak)} at most was ever in use",
            since_step=last.first_step,
            detail=f"{size(last.cuda_allocated_bytes)} is allocated now.",
            metric="cuda_reserved_bytes",
            value=float(reserved),
            threshold=limits.factor * peak,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.MEMORY,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("cuda_reserved_bytes", "cuda_peak_bytes"),
    uses=("cuda_allocated_bytes",),
    limits=Limits(),
    find=find,
    fix="Start with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, and use fewer different sizes.",
    snippet="PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True python train.py",
)
