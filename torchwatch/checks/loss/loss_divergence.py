"""The loss rises instead of falling.

What it detects
    The mean loss rose in two or more intervals in a row after the first, by more than noise explains.

Why it matters
    Each further step makes the model worse. Slow divergence ends in an explosion, or in a flat loss at the
    level of guessing.

What to do
    Lower the learning rate by a factor of 3 to 10, warm it up over the first few hundred steps and let it
    decay. Clip gradients. If the loss has several terms, log each of them: one may be growing on purpose.

When it is fine
    After a logged rise of the learning rate the loss may rise for two intervals. Adversarial and
    reinforcement losses have no reason to fall (then it is only noted), and so has a loss whose weights
    change on purpose, such as an annealed KL term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Curve, curve, falls, has_signs, plays_against_itself
from torchwatch.history import History
from torchwatch.statistics import noise_at, slope_bounds
from torchwatch.text import number, percent

_LOOK_BACK = 6
_LEVEL = 3


@dataclass(frozen=True)
class Limits:
    """When the loss diverges. A guard at 0 is off.

    Attributes:
        rises: rises of the interval mean in a row, after the first interval (intervals).
        sigmas: guard: smallest total rise, in σ of the difference of two interval means, raised with the
            number of intervals as chance has more of them (σ).
        rise_share: guard: smallest total rise over the level before it (share).
        first_share: guard: smallest total rise over the first interval's level (share).
        slope_intervals: guard: the Theil–Sen slope of as many last intervals must be positive (intervals).
        lr_intervals: guard: intervals after a logged rise of the lr that do not count (intervals).
        adversarial: guard: 1 only notes it where the loss is not made to fall (switch).
    """

    rises: int = 2
    sigmas: float = 3.0
    rise_share: float = 0.1
    first_share: float = 0.01
    slope_intervals: int = 5
    lr_intervals: int = 2
    adversarial: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while the loss has risen and not come back."""
    losses = curve(history)
    count, rises = losses.mean.size, max(1, limits.rises)
    if count < rises + 2:
        return NotReady(f"needs {rises + 2} intervals with a loss, {count} seen")
    settled = _settled(history, losses, limits)
    for end in range(count - 1, max(rises, count - 1 - _LOOK_BACK), -1):
        start = max(settled, _start(losses, end))
        if end - start < rises or not _holds(losses, settled, start, end, limits):
            continue
        # A single jump that two intervals share looks like two rises, but after it the loss falls.
        span = int(losses.first_step[end]), int(losses.last_step[end])
        if not limits.slope_intervals or not falls(history, *span):
            return [_finding(history, losses, start, end, limits)]
    return []


def _settled(history: History, losses: Curve, limits: Limits) -> int:
    """Index of the first interval that no raised lr explains any more; rises count from its mean on."""
    raised = history.lr_rises()
    if not raised or not limits.lr_intervals:
        return 0
    grace = limits.lr_intervals * max(i.length for i in history.intervals[-4:])
    return int(np.searchsorted(losses.first_step, raised[-1] + grace, side="right"))


def _start(losses: Curve, end: int) -> int:
    """Index of the low point from which the mean rose without a break to ``end``; never 0."""
    start = end
    while start > 1 and losses.mean[start - 1] < losses.mean[start]:
        start -= 1
    return start


def _threshold(losses: Curve, start: int, end: int, limits: Limits) -> float:
    """The rise from ``start`` to ``end`` that noise as it was before hardly ever makes in so many intervals.

    Among n intervals a rise of √(z² + 2 ln n) σ is about as rare as one of z σ in a single one. A short
    interval at the end is noisier than those before.
    """
    if not limits.sigmas:
        return 0.0
    typical = float(np.median(losses.error[max(0, start - _LEVEL) : start + 1]))
    scatter = noise_at(float(losses.mean[start]), losses.mean[: start + 1])
    sigma = float(np.nanmax([math.sqrt(2) * scatter, math.hypot(typical, float(losses.error[end]))]))
    return math.sqrt(limits.sigmas**2 + 2 * math.log(end + 1)) * sigma


def _holds(losses: Curve, settled: int, start: int, end: int, limits: Limits) -> bool:
    """Whether the rise from ``start`` to ``end`` is more than noise, and still there."""
    mean = losses.mean
    before = mean[max(settled, start - _LEVEL + 1, 0) : start + 1]
    level = float(np.median(before) if limits.sigmas else mean[start])
    rise = float(mean[end]) - level
    if mean[end:].min() < level + rise / 2 or mean[-1] <= mean[start]:
        return False
    floor = max(
        _threshold(losses, start, end, limits),
        limits.rise_share * abs(level),
        limits.first_share * abs(float(mean[0])),
    )
    if rise <= floor and floor > 0:
        return False
    if not limits.slope_intervals:
        return True
    last = slice(max(0, end + 1 - limits.slope_intervals), end + 1)
    return slope_bounds(np.arange(end + 1)[last], mean[last])[1] > 0 or end - start >= limits.slope_intervals


def _finding(history: History, losses: Curve, start: int, end: int, limits: Limits) -> Finding:
    low, now, first = float(losses.mean[start]), float(losses.mean[-1]), float(losses.mean[0])
    why = plays_against_itself(history)
    if why is None and has_signs(history):
        why = "the loss changes its sign"
    excused = bool(limits.adversarial) and why is not None
    above = now - first > _threshold(losses, start, end, limits)
    severity = Severity.INFO if excused else Severity.CRITICAL if above else Severity.WARNING
    onset = int(losses.first_step[start + 1])
    share = percent(now / low - 1) if low > 0 else number(now - low)
    detail = (
        f"Interval mean {number(low)} to step {onset - 1}, then "
        f"{', '.join(number(float(v)) for v in losses.mean[start + 1 :][:8])}; first {number(first)}."
        + (f" Only noted, because {why}." if excused else "")
    )
    return Finding(
        title=f"Loss rose by {share} since step {onset}",
        since_step=onset,
        detail=detail,
        severity=severity,
        metric="loss_mean",
        value=now,
        threshold=low,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL}),
    reads=("loss",),
    uses=("lr",),
    limits=Limits(),
    find=find,
    fix="Lower the learning rate by a factor of 3 to 10, warm it up and let it decay, and clip gradients.",
    snippet=(
        "warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=500)\n"
        "# after each optimizer.step(): warm_up.step()\n"
    ),
    resolve_after=2,
)
