"""The loss jumped to a multiple of what it was.

What it detects
    The median loss of the last 5 steps is more than twice that of the 50 steps before, or an interval's mean
    is more than twice that of the interval before and stays up. For a loss that can be 0 or negative the jump
    is measured in σ alone.

Why it matters
    The weights have left the region in which they had learned something. Waiting rarely brings it back, and
    the checkpoints written from now on are worse than the last one.

What to do
    Divide the learning rate by 10 and clip the gradient norm. Go back to a checkpoint from before the jump.
    Look at what changed at the named step: a schedule, a data source, a loss weight.

When it is fine
    Losses that already fall again are left to the intervals: new classes or a harder source lift the loss
    above where the run began, and it comes down at once. After a logged rise of the learning rate (a warm
    restart) a bump is expected and is only noted, unless the loss is still above its first level two
    intervals later. A jump below the first level from which the loss already falls again, as at a change of
    curriculum, is only noted too. A few hard batches are ``loss-spike``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import (
    Curve,
    Steps,
    Values,
    changes_objective,
    curve,
    falls,
    first_level,
    has_signs,
    lr_rose,
    plays_against_itself,
)
from torchwatch.history import History, Series
from torchwatch.statistics import middle, noise_at, scatter
from torchwatch.text import number

_LOOK_BACK = 8


@dataclass(frozen=True)
class Limits:
    """When the loss has exploded. A guard at 0 is off.

    Attributes:
        ratio: smallest ratio of the level after to the level before (ratio).
        recent_steps: steps that make the level after (steps).
        before_steps: steps that make the level before (steps).
        sigmas: guard: smallest jump, in σ of such a level; of its logarithm where that exists (σ).
        sustained: guard: 1 asks that each of the recent steps lies above the trigger (switch).
        unseen_steps: guard: the recent losses must lie above all but a few of as many steps before (steps).
        first_level: guard: critical only above this multiple of the first interval's mean, otherwise a
            warning, and that only from intervals (ratio).
        first_floor: guard: smallest jump between intervals over the first interval's mean (share).
        lr_intervals: guard: a jump this soon after a logged rise of the lr is only noted (intervals).
        settle_intervals: guard: a jump below the first level is only noted until so many intervals show it,
            and where the loss falls again after it (intervals).
        settling: guard: no verdict from steps while the last of the recent losses lies below this share of
            the first: it falls again (share).
        adversarial: guard: 1 only notes a jump between intervals of a loss that is not made to fall, and one
            with which another optimizer takes over (switch).
    """

    ratio: float = 2.0
    recent_steps: int = 5
    before_steps: int = 50
    sigmas: float = 6.0
    sustained: int = 1
    unseen_steps: int = 500
    first_level: float = 1.0
    first_floor: float = 0.1
    lr_intervals: int = 2
    settle_intervals: int = 2
    settling: float = 0.75
    adversarial: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding; after a step line from steps, after an interval from intervals."""
    if history.new_from > history.step:
        return _between_intervals(history, limits)
    losses = history.series("loss")
    needed = limits.recent_steps + limits.before_steps
    if losses.values.size < needed:
        return NotReady(f"needs {needed} steps with a loss, {losses.values.size} seen")
    fresh = losses.values.size - int(np.searchsorted(losses.steps, history.new_from))
    ends = np.arange(
        losses.values.size, max(needed, losses.values.size - fresh + 1) - 1, -limits.recent_steps
    )
    if not fresh or not ends.size:
        return []
    signed = has_signs(history)
    for end, before, recent in _candidates(losses.values, ends, limits, signed=signed):
        finding = _at_step(history, losses, end, before, recent, limits)
        if finding is not None:
            return [finding]
    return []


def _candidates(
    values: Values, ends: Steps, limits: Limits, *, signed: bool
) -> list[tuple[int, float, float]]:
    """Ends of windows that meet the bare trigger, with the level before and after."""
    cut, width = limits.before_steps, limits.before_steps + limits.recent_steps
    windows = values[ends[:, None] + np.arange(-width, 0)]
    ordered = np.sort(windows[:, :cut], axis=1)  # NaN sorts last
    before = ordered[:, cut // 2]
    recent = np.sort(windows[:, cut:], axis=1)[:, limits.recent_steps // 2]
    hit = recent > (ordered[:, -1 - cut // 10] if signed else limits.ratio * before)
    if not hit.any():
        return []
    return [
        (int(ends[i]), float(before[i]), float(recent[i])) for i in np.flatnonzero(hit & np.isfinite(recent))
    ]


def _at_step(
    history: History, losses: Series, end: int, before: float, recent: float, limits: Limits
) -> Finding | None:
    start = end - limits.recent_steps
    # The high losses at the beginning are what the first level stands for.
    begin = int(np.searchsorted(losses.steps, history.intervals[0].last_step)) if history.intervals else 0
    begin = min(max(begin, start - limits.unseen_steps), start - limits.before_steps)
    reference = losses.values[begin:start]
    reference = reference[np.isfinite(reference)]
    signed = has_signs(history)
    sigma = scatter(reference) if signed else _log_sigma(losses.values[start - limits.before_steps : start])
    jump = recent - before if signed else float(np.log(recent) - np.log(max(before, 1e-300)))
    trigger = before + limits.sigmas * sigma if signed else limits.ratio * before
    least = float(losses.values[start:end].min())
    first = first_level(history)
    above = first is None or not limits.first_level or recent > limits.first_level * first
    unseen = not limits.unseen_steps or least > np.sort(reference)[-1 - min(4, reference.size // 50)]
    falls_again = not signed and losses.values[end - 1] < limits.settling * losses.values[start]
    # A sharp verdict below the first level would hit every change of curriculum: intervals judge those.
    noise_of_level = sigma * _median_error(limits)
    if (
        jump <= limits.sigmas * noise_of_level
        or not above
        or not unseen
        or falls_again
        or (limits.sustained and least <= trigger)
    ):
        return None
    quiet = np.flatnonzero(losses.values[:end] <= trigger)
    onset = int(losses.steps[quiet[-1] + 1 if quiet.size else 0])
    restart = lr_rose(history, onset, limits.lr_intervals)
    far = first is not None and recent > (limits.ratio * first if not signed else first)
    other = bool(limits.adversarial) and changes_objective(history, onset)
    severity = Severity.INFO if other or (restart and not far) else Severity.CRITICAL
    detail = (
        f"Median of the last {limits.recent_steps} steps {number(recent)}, of {limits.before_steps} before "
        f"{number(before)}; the jump is {_in_sigmas(jump, noise_of_level)}. First level {number(first)}."
        + (" Only noted, because another optimizer took over there." if other else "")
    )
    return _finding(before, recent, onset, severity, detail, trigger, signed=signed, restart=restart)


def _median_error(limits: Limits) -> float:
    """σ of the median of the recent steps over σ of one step: √(π ⁄ 2n) for normal noise."""
    return min(1.0, math.sqrt(math.pi / 2 / limits.recent_steps))


def _log_sigma(values: Values) -> float:
    """σ of the logarithm around its straight line."""
    logs = np.log(np.maximum(values[np.isfinite(values)], 1e-300))
    if logs.size < 3:
        return 0.0
    x = np.arange(logs.size) - (logs.size - 1) / 2
    return scatter(logs - x * float(x @ logs) / float(x @ x))


def _in_sigmas(jump: float, sigma: float) -> str:
    return f"{jump / sigma:.3g} σ" if sigma > 0 else "beyond a noise of 0"


def _between_intervals(history: History, limits: Limits) -> list[Finding] | NotReady:
    """The earliest jump within the last intervals from which the loss has not come back."""
    losses = curve(history)
    count = losses.mean.size
    if count < 2:
        return NotReady(f"needs 2 intervals with a loss, {count} seen")
    signed = has_signs(history)
    for at in range(max(1, count - _LOOK_BACK), count):
        sigma = _interval_sigma(losses, at, signed=signed)
        base = _base(losses, at)
        trigger = base + limits.sigmas * sigma if signed else limits.ratio * base
        least = max(limits.sigmas * sigma, limits.first_floor * abs(float(losses.mean[0])))
        lasting = losses.mean[at:].min() > trigger and losses.mean[at] - base > least
        if lasting and not (signed and not sigma) and _typical(history, losses, limits) > trigger:
            return [_at_interval(history, losses, at, trigger, limits)]
    return []


def _base(losses: Curve, at: int) -> float:
    """The lower one of the two means before: a jump in mid-interval is split between two."""
    return float(losses.mean[max(0, at - 2) : at].min())


def _interval_sigma(losses: Curve, at: int, *, signed: bool) -> float:
    """σ of an interval mean; of a single step for a loss with signs, whose level may swing by as much."""
    typical = losses.spread[at - 1] if signed else losses.error[at - 1]
    return float(np.nanmax([noise_at(_base(losses, at), losses.mean[:at]), float(typical)]))


def _typical(history: History, losses: Curve, limits: Limits) -> float:
    """Median loss of the second half of the last interval, which single outliers do not move."""
    if not limits.sustained:
        return np.inf
    steps, values = history.series("loss")
    inside = values[steps > (losses.first_step[-1] + losses.last_step[-1]) // 2]
    inside = inside[np.isfinite(inside)]
    return middle(inside) if inside.size else float(losses.mean[-1])


def _at_interval(history: History, losses: Curve, at: int, trigger: float, limits: Limits) -> Finding:
    base, now, first = _base(losses, at), float(losses.mean[-1]), float(losses.mean[0])
    onset = _onset(history, losses, at, trigger)
    restart = lr_rose(history, onset, limits.lr_intervals)
    above = not limits.first_level or now > (limits.first_level * first if first > 0 else first)
    expected = restart and (losses.mean.size - at <= limits.lr_intervals or not above)
    early = losses.mean.size - at < limits.settle_intervals
    falling = bool(limits.settle_intervals) and not above and (early or falls(history, onset, history.step))
    excused = bool(limits.adversarial) and plays_against_itself(history) is not None
    severity = Severity.CRITICAL if above else Severity.WARNING
    if expected or falling or excused:
        severity = Severity.INFO
    detail = (
        f"Interval means {number(base)} before step {int(losses.first_step[at])}, then "
        f"{number(float(losses.mean[at]))}, now {number(now)}. First interval {number(first)}."
        + ((" It is too early to tell." if early else " The loss already falls again.") if falling else "")
    )
    signed = has_signs(history)
    return _finding(base, now, onset, severity, detail, trigger, signed=signed, restart=restart)


def _onset(history: History, losses: Curve, at: int, trigger: float) -> int:
    """First step after which the loss stayed up, in this interval or the one before."""
    steps, values = history.series("loss")
    inside = (steps >= losses.first_step[max(0, at - 1)]) & (steps <= losses.last_step[at])
    if not inside.any():
        return int(losses.first_step[at])
    # From here to the end there are more steps above the trigger than from anywhere else, less those below.
    above = np.cumsum(np.where(values[inside] > trigger, 1, -1)[::-1])[::-1]
    return int(steps[inside][above.argmax()])


def _finding(
    before: float,
    now: float,
    onset: int,
    severity: Severity,
    detail: str,
    trigger: float,
    *,
    signed: bool,
    restart: bool,
) -> Finding:
    much = (
        f"{number(before)} to {number(now)}"
        if signed or before <= 0
        else f"{now / before:.3g}-fold, to {number(now)}"
    )
    verb = "rose from" if signed or before <= 0 else "rose"
    return Finding(
        title=f"Loss {verb} {much}, at step {onset}",
        since_step=onset,
        detail=detail + (" The learning rate was raised shortly before." if restart else ""),
        severity=severity,
        metric="loss",
        value=now,
        threshold=trigger,
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("loss",),
    uses=("lr",),
    limits=Limits(),
    find=find,
    fix="Divide the learning rate by 10, clip gradients, and go back to a checkpoint from before the jump.",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)  # between backward and step\n",
    resolve_after=250,
)
