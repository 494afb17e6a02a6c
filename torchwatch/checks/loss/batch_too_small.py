"""The loss is noisy and the accelerator has room: the batch is too small.

What it detects
    Within an interval the step-to-step scatter of the loss is more than a quarter of its mean (half of what
    ``noisy-loss`` asks for) while the busiest GPU was in use less than 70 % of the time.

Why it matters
    Larger batches cost little while the accelerator idles, and give a steadier gradient.

What to do
    Double the batch until the utilisation or the memory is full, and raise the learning rate with it.

When it is fine
    Where data loading keeps the accelerator waiting a larger batch changes nothing, and small batches can be
    wanted for the noise that they bring. It is never more than a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._roughness import roughness
from torchwatch.history import History
from torchwatch.text import number, percent


@dataclass(frozen=True)
class Limits:
    """When the batch is too small. A guard at 0 is off.

    Attributes:
        ratio: largest scatter over mean within an interval (ratio).
        utilization: utilisation of the busiest GPU below which it has room (percent).
        readings: guard: readings of it that must have been seen since warm-up (system records).
        most_readings: readings that are looked at (system records).
        first_floor: guard: the scatter is held against at least this share of the first level (share).
        warm_up: guard: 1 leaves out the first interval and warm-up (switch).
    """

    ratio: float = 0.25
    utilization: float = 70.0
    readings: int = 5
    most_readings: int = 30
    first_floor: float = 0.1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the last interval."""
    rough = roughness(history, warm_up=bool(limits.warm_up))
    if rough is None:
        return []
    if isinstance(rough, NotReady):
        return rough
    level = max(rough.mean, limits.first_floor * rough.first)
    if rough.sigma <= limits.ratio * level:
        return []
    busy = _utilization(history, limits)
    needed = max(1, limits.readings)
    if len(busy) < needed:
        return NotReady(f"needs {needed} readings of the GPU's utilisation after warm-up, {len(busy)} seen")
    typical = float(np.median(busy))
    if typical >= limits.utilization:
        return []
    samples = history.series("samples", 1).values
    batch = f" The batch is {int(samples[0])} samples." if samples.size else ""
    return [
        Finding(
            title=f"Loss varies by {percent(rough.sigma / level)} while the GPU is {typical:.0f} % busy",
            since_step=rough.since,
            detail=f"Step-to-step scatter {number(rough.sigma)}, mean {number(rough.mean)}; median "
            f"utilisation over {len(busy)} readings.{batch}",
            metric="loss",
            value=rough.sigma / level,
            threshold=limits.ratio,
        )
    ]


def _utilization(history: History, limits: Limits) -> list[float]:
    """Of the busiest GPU, percent, in the last readings after warm-up."""
    start = history.warm_up_end() if limits.warm_up else 0
    recent = [s for s in history.systems[-limits.most_readings :] if s.step > start]
    each = [
        [v for gpu in s.gpus or () if isinstance(v := gpu.get("utilization_percent"), (int, float))]
        for s in recent
    ]
    return [float(max(values)) for values in each if values]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL}),
    reads=("loss", "gpus"),
    uses=("samples",),
    limits=Limits(),
    find=find,
    fix="Double the batch until the GPU or its memory is full, and raise the learning rate with it.",
    resolve_after=2,
)
