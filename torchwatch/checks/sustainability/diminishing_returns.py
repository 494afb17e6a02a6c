"""Training goes on for very little.

What it detects
    Each of the last three evaluations (or intervals, where nothing is validated) improved on the best before
    by less than 5 % of everything that was gained so far, and the last points show no certain slope.

Why it matters
    Most of the energy of a run is often spent on its last few percent. This is the point to ask whether they
    are needed.

What to do
    Lower the learning rate if it has not been lowered yet, or stop here. Compare the time and energy of the
    last points with what they brought.

When it is fine
    When those last percent are what the run is for. Every training gets here in the end: it is an info and
    never more. Noise is not taken for an end: a loss that still falls for certain is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.statistics import slope_bounds
from torchwatch.text import duration, number, percent, printable

if TYPE_CHECKING:
    from torchwatch.history import History, Series

_NEAR = 64


@dataclass(frozen=True)
class Limits:
    """When returns are small. A guard at 0 is off.

    Attributes:
        points: last points that must all bring little (count).
        share: gain of a point, of all that was gained before, below which it is little (share).
        least_gain: guard: least gain so far, of the first level: a run that learnt nothing is another matter
            (share).
        slope_points: guard: the confidence interval of the slope over so many last points must hold 0
            (count).
        planned_share: guard: not before this share of the declared ``planned_steps`` (share).
    """

    points: int = 3
    share: float = 0.05
    least_gain: float = 0.1
    slope_points: int = 6
    planned_share: float = 0.2


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    name, losses = _curve(history)
    points = max(1, limits.points)
    needed = max(points + 2, limits.slope_points)
    if losses.values.size < needed:
        return NotReady(f"needs {needed} points of {name}, {losses.values.size} seen")
    planned = history.declared.get("planned_steps")
    if isinstance(planned, (int, float)) and history.step < limits.planned_share * planned:
        return []
    best = np.minimum.accumulate(losses.values)
    gains, gained = -np.diff(best)[-points:], losses.values[0] - best[-points - 1 : -1]
    if gained[0] <= limits.least_gain * abs(float(losses.values[0])) or gained[0] <= 0:
        return []
    if (gains >= limits.share * gained).any():
        return []
    if limits.slope_points:
        last = slice(-limits.slope_points, None)
        low, _, high = slope_bounds(losses.steps[last], losses.values[last])
        if low > 0 or high < 0:
            return []
    return [_finding(history, name, losses, abs(float(gains.max() / gained[-1])), limits)]


def _curve(history: History) -> tuple[str, Series]:
    """The validation loss if there is one, else the loss per interval; finite values only."""
    name = history.val_loss_name()
    series = history.eval_series(name) if name is not None else history.interval_series("loss_mean")
    fine = np.isfinite(series.values)
    fine[1:] &= np.diff(series.steps) > 0
    return name or "loss per interval", type(series)(series.steps[fine], series.values[fine])


def _finding(history: History, name: str, losses: Series, largest: float, limits: Limits) -> Finding:
    points = max(1, limits.points)
    onset = int(losses.steps[-points - 1])
    took = f" They took {duration(history.time_s - _time_of(history, onset))}."
    values = ", ".join(number(float(v)) for v in losses.values[-points:])
    return Finding(
        title=f"The last {points} points brought at most {percent(largest)} of all that was gained",
        since_step=onset,
        detail=f"{printable(name, 60)}: {number(float(losses.values[0]))} at first, then "
        f"{number(float(losses.values[:-points].min()))} at best, now {values}.{took}",
        metric=name,
        value=largest,
        threshold=limits.share,
    )


def _time_of(history: History, step: int) -> float:
    """When the evaluation or interval of that step was."""
    ends = [(e.step, e.time_s) for e in history.evals[-_NEAR:]]
    ends += [(i.last_step, i.time_s) for i in history.intervals[-_NEAR:]]
    return next((time_s for at, time_s in ends if at == step), history.time_s)


CHECK = Check(
    severity=Severity.INFO,
    category=Category.SUSTAINABILITY,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL, On.EVAL}),
    reads=("loss",),
    uses=("val_loss",),
    limits=Limits(),
    find=find,
    fix="Lower the learning rate once more, or stop here: what still comes is dear.",
    snippet="scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=remaining_steps)",
)
