"""The GPU idles for a good part of the time.

What it detects
    The median utilisation over 60 s of the busiest GPU of this process, as NVML tells it (the share of time
    in which any kernel ran), is below 70 %; a warning when it was below 30 % for five minutes. Time in which
    no step was taken (evaluation, saving) does not count.

Why it matters
    The same training would be done in a fraction of the time, or on a smaller device.

What to do
    A larger batch, mixed precision, ``torch.compile`` (many small kernels leave gaps), a faster loader. See
    `input-bound` whether it waits for data, and a profile for where the gaps are.

When it is fine
    Small models and short steps cannot fill a large GPU: that is why a short stretch is only noted. NVML's
    number says nothing about how well a kernel uses the device; 100 % can be slow, too.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import number_of, of_gpus, recent, used_gpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History
    from torchwatch.records import System

_LEAST = 10


@dataclass(frozen=True)
class Limits:
    """When idling is reported. A guard at 0 is off.

    Attributes:
        info: median utilisation below which it is an info (percent).
        warning: median utilisation below which it is a warning (percent).
        seconds: stretch over which the median is taken (seconds).
        warning_s: guard: stretch whose median must also be so low for a warning (seconds).
        active_s: guard: readings longer after a step than this do not count: nothing was trained (seconds).
    """

    info: float = 70.0
    warning: float = 30.0
    seconds: float = 60.0
    warning_s: float = 300.0
    active_s: float = 10.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    indices = used_gpus(history)
    if not indices:
        return NotReady("the model is not on a GPU")
    records = recent(history, limits.seconds)
    if records is None:
        return NotReady(f"needs {limits.seconds:g} s of readings")
    now = _median(records, indices, limits)
    if now is None or now >= limits.info:
        return []
    longer = recent(history, max(limits.warning_s, limits.seconds)) if now < limits.warning else None
    lasting = None if longer is None else _median(longer, indices, limits)
    warns = lasting is not None and lasting < limits.warning
    return [
        Finding(
            title=f"The GPU works {now:.0f} % of the time",
            since_step=(longer if warns and longer is not None else records)[0].step,
            detail=f"Median utilisation of the last {limits.seconds:g} s"
            + (f", {lasting:.0f} % over {max(limits.warning_s, limits.seconds):g} s." if warns else "."),
            severity=Severity.WARNING if warns else Severity.INFO,
            metric="gpus.utilization_percent",
            value=now,
            threshold=limits.warning if warns else limits.info,
        )
    ]


def _median(records: Sequence[System], indices: frozenset[int], limits: Limits) -> float | None:
    """The busiest GPU's median while steps were taken; None where that was seldom."""
    by_gpu: dict[int, list[float]] = {}
    least = max(_LEAST, len(records) / 2)
    for record in records:
        since = record.since_step_s
        if limits.active_s and (since is None or since > limits.active_s):
            continue
        for gpu in of_gpus(record, indices):
            value = number_of(gpu, "utilization_percent")
            if value is not None:
                by_gpu.setdefault(gpu["index"], []).append(value)
    return max((statistics.median(v) for v in by_gpu.values() if len(v) >= least), default=None)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.SYSTEM}),
    reads=("gpus",),
    uses=("since_step_s",),
    limits=Limits(),
    find=find,
    fix="Use a larger batch, mixed precision or torch.compile, and see whether the loader keeps up.",
    snippet="model = torch.compile(model)",
    resolve_after=10,
)
