"""The loss jumps about from step to step.

What it detects
    Within an interval the step-to-step scatter of the loss, with any slow trend taken out, is more than half
    its mean.

Why it matters
    Where noise is as large as the loss itself, single values say nothing, and the gradient is as noisy. It
    costs speed, and with a large learning rate it can stop progress.

What to do
    Use a larger batch, or accumulate gradients over several. Lower the learning rate, or average the weights.

When it is fine
    Small batches and heavy-tailed targets are noisy by nature, and a loss close to its floor is small against
    its own scatter. As long as the loss has come down this is only noted. It is a warning when the loss has
    also stopped improving not far below the level at which it started.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Curve, most_fallen, plays_against_itself
from torchwatch.checks.loss._roughness import Roughness, roughness
from torchwatch.history import History
from torchwatch.text import number, percent


@dataclass(frozen=True)
class Limits:
    """When the loss is noisy. A guard at 0 is off.

    Attributes:
        ratio: largest scatter over mean within an interval (ratio).
        first_floor: guard: the scatter is held against at least this share of the first level (share).
        warm_up: guard: 1 leaves out the first interval and warm-up (switch).
        stuck_level: for a warning the loss must certainly still be above this share of its first (share).
        stuck_intervals: guard: for a warning, intervals that must have been seen (intervals).
    """

    ratio: float = 0.5
    first_floor: float = 0.1
    warm_up: int = 1
    stuck_level: float = 0.9
    stuck_intervals: int = 6


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while the last interval is noisy."""
    rough = roughness(history, warm_up=bool(limits.warm_up))
    if rough is None:
        return []
    if isinstance(rough, NotReady):
        return rough
    level = max(rough.mean, limits.first_floor * rough.first)
    return [_finding(history, rough, level, limits)] if rough.sigma > limits.ratio * level else []


def _finding(history: History, rough: Roughness, level: float, limits: Limits) -> Finding:
    stuck = _is_stuck(rough.losses, limits) and not plays_against_itself(history)
    return Finding(
        title=f"Loss varies by {percent(rough.sigma / level)} of its level from step to step",
        since_step=rough.since,
        detail=f"Step-to-step scatter {number(rough.sigma)}, mean {number(rough.mean)}; "
        f"first interval {number(rough.first)}." + (" The loss has also stopped improving." if stuck else ""),
        severity=Severity.WARNING if stuck else Severity.INFO,
        metric="loss",
        value=rough.sigma / level,
        threshold=limits.ratio,
    )


def _is_stuck(losses: Curve, limits: Limits) -> bool:
    """Whether the loss cannot have come far down, however much its noise hides."""
    first = float(losses.mean[0])
    if losses.mean.size <= limits.stuck_intervals:
        return False
    return most_fallen(losses, first) < (1 - limits.stuck_level) * first


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL}),
    reads=("loss",),
    uses=("lr",),
    limits=Limits(),
    find=find,
    fix="Use a larger batch or accumulate gradients over several, and lower the learning rate.",
    snippet=(
        "for i, (x, y) in enumerate(loader):\n"
        "    loss = loss_function(model(x), y) / 4\n"
        "    loss.backward()\n"
        "    if i % 4 == 3:\n"
        "        optimizer.step()\n"
        "        optimizer.zero_grad()\n"
    ),
    resolve_after=2,
)
