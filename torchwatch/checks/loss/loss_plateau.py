"""The loss has stopped improving.

What it detects
    The best of the last three points is less than 1 % better than the best before them. The points are
    validation losses where there are any, else epochs, else intervals.

Why it matters
    Further steps at these settings cost time and energy and change little.

What to do
    Lower the learning rate when the loss stands still (``ReduceLROnPlateau``), or stop. If the loss is still
    poor, the model is too small, the learning rate is too low, or the data has no more to give.

When it is fine
    At the end of every successful training. It is never more than a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import curve
from torchwatch.history import History, Series
from torchwatch.statistics import slope_bounds
from torchwatch.text import number


@dataclass(frozen=True)
class Limits:
    """When the loss stands still. A guard at 0 is off.

    Attributes:
        points: evaluations, epochs or intervals without improvement (count).
        improvement: smallest relative improvement that counts (share).
        slope_points: guard: the confidence interval of the slope over so many points must hold 0 (count).
        planned_share: guard: not before this share of the declared ``planned_steps`` (share).
    """

    points: int = 3
    improvement: float = 0.01
    slope_points: int = 6
    planned_share: float = 0.2


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while there is no progress."""
    name, losses = _curve(history)
    needed = max(limits.points + 1, limits.slope_points)
    if losses.values.size < needed:
        return NotReady(f"needs {needed} points of {name}, {losses.values.size} seen")
    planned = history.declared.get("planned_steps")
    if isinstance(planned, (int, float)) and history.step < limits.planned_share * planned:
        return []
    old, new = losses.values[: -limits.points], losses.values[-limits.points :]
    best = int(old.argmin())
    gain = float(old[best] - new.min())
    scale = abs(float(old[best]))
    if gain >= limits.improvement * scale and gain > 0:
        return []
    if limits.slope_points:
        last = slice(-limits.slope_points, None)
        low, _, high = slope_bounds(losses.steps[last], losses.values[last])
        if low > 0 or high < 0:
            return []
    return [_finding(name, losses, best, gain, scale, limits)]


def _curve(history: History) -> tuple[str, Series]:
    """Validation loss if there is one, else the loss per epoch, else per interval; finite values only."""
    name = history.val_loss_name()
    if name is not None:
        return name, _finite(history.eval_series(name))
    epochs = [(e.step, e.loss_mean) for e in history.epochs if e.loss_mean is not None]
    if len(epochs) > 1:
        steps, values = zip(*epochs, strict=True)
        return "loss per epoch", _finite(Series(np.array(steps, np.int64), np.array(values, np.float64)))
    losses = curve(history)
    return "loss per interval", Series(losses.last_step, losses.mean)


def _finite(series: Series) -> Series:
    fine = np.isfinite(series.values) & np.append(True, np.diff(series.steps) > 0)
    return Series(series.steps[fine], series.values[fine])


def _finding(name: str, losses: Series, best: int, gain: float, scale: float, limits: Limits) -> Finding:
    share = 100 * gain / scale if scale else 0.0
    values = ", ".join(number(float(v)) for v in losses.values[-limits.points :])
    best_step = int(losses.steps[best])
    changed = f"improved by {share:.2g} %" if gain > 0 else "did not improve"
    return Finding(
        title=f"The {name} {changed} over the last {limits.points} points",
        since_step=best_step,
        detail=f"Best before {number(float(losses.values[best]))} at step {best_step}, then {values}.",
        metric=name,
        value=share / 100,
        threshold=limits.improvement,
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL, On.EVAL}),
    reads=("loss",),
    uses=("val_loss",),
    limits=Limits(),
    find=find,
    fix="Lower the learning rate when the loss stands still, or stop the training here.",
    snippet=(
        "scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2)\n"
        "# after each evaluation: scheduler.step(val_loss)\n"
    ),
    resolve_after=2,
)
