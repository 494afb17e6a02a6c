"""The loss falls steadily, in steps that are too small.

What it detects
    In three intervals in a row a typical step moved the weights by less than a hundred-thousandth of their
    size, while the loss fell for certain.

Why it matters
    The direction is right and the way is long: a larger learning rate gets to the same place sooner.

What to do
    Multiply the learning rate by 3 to 10, or run a learning-rate finder.

When it is fine
    Fine-tuning with a small learning rate is meant to stay close to where it began. Warm-up and the end of a
    decay are left out. It is never more than a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import falls
from torchwatch.history import History
from torchwatch.text import number


@dataclass(frozen=True)
class Limits:
    """When steps are too small. A guard at 0 is off.

    Attributes:
        update_ratio: largest median ‖Δw‖ ⁄ ‖w‖ of a step (ratio).
        intervals: intervals in a row (intervals).
        lr_share: guard: the learning rate must be at least this share of its largest (share).
        warm_up: guard: 1 leaves out warm-up (switch).
        fine_tuning: guard: 1 says nothing where fine-tuning was declared (switch).
    """

    update_ratio: float = 1e-5
    intervals: int = 3
    lr_share: float = 0.1
    warm_up: int = 1
    fine_tuning: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, while steps are too small."""
    needed = max(1, limits.intervals)
    ratios = history.interval_series("update_ratio_median").values[-needed:]
    if ratios.size < needed:
        return NotReady(f"needs {needed} intervals with an update ratio, {ratios.size} seen")
    if not ((ratios > 0) & (ratios < limits.update_ratio)).all():
        return []
    span = history.intervals[-needed:]
    if limits.warm_up and span[0].first_step <= history.warm_up_end():
        return []
    if _has_decayed(history, limits) or (limits.fine_tuning and history.declared.get("fine_tuning")):
        return []
    if not falls(history, span[0].first_step, span[-1].last_step):
        return []
    typical = float(np.median(ratios))
    means = ", ".join(number(i.loss_mean) for i in span)
    return [
        Finding(
            title=f"Weights move by {number(typical)} of their size per step while the loss falls",
            since_step=span[0].first_step,
            detail=f"Interval means of the loss {means}; learning rate {number(span[-1].lr_max)}.",
            metric="update_ratio",
            value=typical,
            threshold=limits.update_ratio,
        )
    ]


def _has_decayed(history: History, limits: Limits) -> bool:
    rates = history.interval_series("lr_max").values
    return bool(limits.lr_share and rates.size and rates[-1] < limits.lr_share * rates.max())


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL}),
    reads=("loss", "update_ratio"),
    uses=("lr",),
    limits=Limits(),
    find=find,
    fix="Multiply the learning rate by 3 to 10, or run a learning-rate finder.",
    resolve_after=2,
)
