"""The gradient scaler skips too many steps.

What it detects
    More than a quarter of the steps of the last interval (of its last 20 steps, if it is shorter) were
    skipped by the ``GradScaler`` because a gradient was infinite or NaN, or its scale has fallen below 1.

Why it matters
    A skipped step is computed and thrown away. A scaler meets one overflow now and then, because it raises
    its scale until one comes; a scale that keeps falling says that gradients overflow by themselves. Below
    a scale of 1 it makes small gradients vanish instead of saving them.

What to do
    Train in bfloat16, which has the range of float32 and needs no scaler. Otherwise find the layer that
    overflows (``overflow-risk``, ``gradient-nonfinite``), normalise its input, lower the learning rate.

When it is fine
    The first steps, in which the scaler looks for its scale, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from torchwatch.history import History, Series


@dataclass(frozen=True)
class Limits:
    """When skipping is too much. A guard at 0 is off.

    Attributes:
        share: largest share of skipped steps (share).
        scale: least scale (factor); 0 leaves this trigger out.
        least_steps: steps that are looked at, at least (steps).
        search_steps: guard: so many steps at the start do not count (steps).
    """

    share: float = 0.25
    scale: float = 1.0
    least_steps: int = 20
    search_steps: int = 20


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    skipped = history.series("skipped")
    start = int(np.searchsorted(skipped.steps, limits.search_steps, side="right"))
    count = len(skipped.steps) - start
    needed = max(1, limits.least_steps)
    if count < needed:
        return NotReady(f"needs {needed} steps after the scaler's search, {count} seen")
    first = history.intervals[-1].first_step if history.intervals else history.step
    recent = min(max(len(skipped.steps) - int(np.searchsorted(skipped.steps, first)), needed), count)
    share = float(skipped.values[-recent:].mean())
    if share > limits.share:
        return [_too_many(skipped, start, recent, share, limits)]
    scale = history.series("grad_scale")
    if limits.scale and len(scale.values) and scale.values[-1] < limits.scale:
        return [_too_low(scale, share, limits)]
    return []


def _too_many(skipped: Series, start: int, recent: int, share: float, limits: Limits) -> Finding:
    """It began with the first skipped step after the last long stretch without any."""
    places = start + np.flatnonzero(skipped.values[start:])
    breaks = np.flatnonzero(np.diff(places) >= max(1, limits.least_steps))
    since = places[int(breaks[-1]) + 1 if breaks.size else 0]
    return Finding(
        title=f"The gradient scaler skipped {percent(share)} of the last {recent} steps",
        since_step=int(skipped.steps[since]),
        detail=f"{len(places[places >= since])} steps were skipped since; none of them changed a weight.",
        metric="skipped",
        value=share,
        threshold=limits.share,
    )


def _too_low(scale: Series, share: float, limits: Limits) -> Finding:
    value = float(scale.values[-1])
    fine = np.flatnonzero(~(scale.values < limits.scale))
    since = int(fine[-1]) + 1 if fine.size else 0
    return Finding(
        title=f"The gradient scaler's scale has fallen to {number(value)}",
        since_step=int(scale.steps[since]),
        detail=f"It skipped {percent(share)} of the last steps; the largest scale was "
        f"{number(float(np.fmax.reduce(scale.values)))}.",
        metric="grad_scale",
        value=value,
        threshold=limits.scale,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.INTERVAL}),
    reads=("skipped",),
    uses=("grad_scale",),
    limits=Limits(),
    find=find,
    fix="Train in bfloat16; otherwise find the layer that overflows and lower the learning rate.",
    snippet='with torch.autocast("cuda", dtype=torch.bfloat16):  # no GradScaler needed\n    ...\n',
)
