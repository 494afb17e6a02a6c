"""The loss swings up and down instead of settling.

What it detects
    The mean loss of one interval lies above its trend, that of the next below it, and so on: the rank
    correlation of neighbours around a straight line is below −0.5 over ten or more intervals (epochs, where
    there are several), and the swings are above 5 % of the loss.

Why it matters
    Steps that are too long jump across the valley they should go down into. The loss then stays above what
    a smaller learning rate reaches.

What to do
    Divide the learning rate by 3 to 10, warm it up, and let it decay.

When it is fine
    Many trainings run at the edge of stability and still get better. So this is only noted, unless weights
    change by more than 1 % in a typical step and the loss does not fall any more. Intervals of an epoch
    whose parts differ swing by themselves, and so do the losses of a cyclic learning rate: epochs are
    compared with epochs, and nothing is said where the rate was raised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Steps, Values, first_level, plays_against_itself
from torchwatch.history import History
from torchwatch.statistics import lag_one, slope_bounds
from torchwatch.text import number, percent


@dataclass(frozen=True)
class Limits:
    """When the loss swings. A guard at 0 is off.

    Attributes:
        correlation: highest correlation with the neighbour (−1 … 1).
        points: intervals or epochs that must have been seen after warm-up (count).
        most_points: intervals or epochs that are looked at (count).
        amplitude: smallest typical change from one to the next over their level (share).
        update_ratio: median ‖Δw‖ ⁄ ‖w‖ of a step above which it is a warning (ratio).
        first_floor: guard: the amplitude is held against at least this share of the first level (share).
        sigmas: guard: the correlation must also be so far below what chance gives (σ).
        excess: guard: smallest ratio of the typical change to that of means of as many noisy steps (ratio).
        rises: guard: 1 says nothing where the learning rate was raised meanwhile (switch).
        falling: guard: 1 only notes it while the loss certainly falls (switch).
        adversarial: guard: 1 only notes it where the loss is not made to fall (switch).
    """

    correlation: float = -0.5
    points: int = 10
    most_points: int = 32
    amplitude: float = 0.05
    update_ratio: float = 1e-2
    first_floor: float = 0.1
    sigmas: float = 3.0
    excess: float = 3.0
    rises: int = 1
    falling: int = 1
    adversarial: int = 1


class _Points(NamedTuple):
    """Mean losses of intervals or epochs: where they began and ended, and their standard error, (n,) each."""

    what: str
    first_step: Steps
    last_step: Steps
    mean: Values
    error: Values


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, while the loss swings."""
    if not _turned(history):
        return []
    points = _points(history, limits)
    count = points.mean.size
    if count < max(4, limits.points):
        return NotReady(f"needs {limits.points} {points.what} after warm-up, {count} seen")
    if limits.rises and any(points.first_step[0] <= r for r in history.lr_rises()):
        return []
    change = float(np.median(np.abs(np.diff(points.mean))))
    level = abs(float(np.median(points.mean)))
    first = first_level(history)
    if limits.first_floor and first is not None:
        level = max(level, limits.first_floor * abs(first))
    # Two noisy means differ by √2 of their standard error times the median of |N(0, 1)|.
    chance = math.sqrt(2) * 0.6745 * float(np.median(points.error))
    if not level or change <= max(limits.amplitude * level, limits.excess * chance):
        return []
    correlation = lag_one(points.mean, points.last_step)
    by_chance = -1 / count - limits.sigmas / math.sqrt(count) if limits.sigmas else 0.0
    if not correlation < min(limits.correlation, by_chance):
        return []
    return [_finding(history, points, correlation, change / level, limits)]


def _turned(history: History) -> bool:
    """Whether the last interval or epoch went the other way than the one before it, as in a swing."""
    for spans in (history.intervals, history.epochs):
        means = [s.loss_mean for s in spans[-3:] if s.loss_mean is not None]
        if len(means) < 3 or (means[2] - means[1]) * (means[1] - means[0]) < 0:
            return True
    return False


def _points(history: History, limits: Limits) -> _Points:
    """The last epochs, where those intervals belong to more than one; else the last intervals."""
    start = history.warm_up_end()
    recent = [i for i in history.intervals[-limits.most_points :] if i.first_step > start]
    what = "intervals"
    spans = [(i.first_step, i.last_step, i.loss_mean) for i in recent]
    if recent and recent[0].epoch != recent[-1].epoch:
        what = "epochs"
        epochs = history.epochs[-limits.most_points :]
        spans = [(e.step - e.steps + 1, e.step, e.loss_mean) for e in epochs if e.step - e.steps >= start]
    spread = [i.loss_std for i in recent if i.loss_std is not None and math.isfinite(i.loss_std)]
    known = [(first, last, mean) for first, last, mean in spans if mean is not None and math.isfinite(mean)]
    firsts = np.array([first for first, _, _ in known], np.int64)
    lasts = np.array([last for _, last, _ in known], np.int64)
    error = (float(np.median(spread)) if spread else 0.0) / np.sqrt(lasts - firsts + 1.0)
    return _Points(what, firsts, lasts, np.array([mean for _, _, mean in known], np.float64), error)


def _finding(
    history: History, points: _Points, correlation: float, amplitude: float, limits: Limits
) -> Finding:
    ratios = history.interval_series("update_ratio_median")
    ratio = ratios.values[ratios.steps >= points.first_step[0]]
    ratio = ratio[np.isfinite(ratio)]
    typical = float(np.median(ratio)) if ratio.size else None
    falls = slope_bounds(points.last_step, points.mean)[2] < 0
    why = plays_against_itself(history) if limits.adversarial else None
    if why is None and limits.falling and falls:
        why = "the loss still falls"
    large = typical is not None and typical > limits.update_ratio
    last = ", ".join(number(float(v)) for v in points.mean[-6:])
    return Finding(
        title=f"Loss swings by {percent(amplitude)} from one of the {points.what} to the next",
        since_step=int(points.first_step[0]),
        detail=f"Last means {last}; correlation of neighbours {number(correlation)} over {points.mean.size} "
        f"{points.what}; median update ratio {number(typical)}."
        + (f" Only noted, because {why}." if large and why else ""),
        severity=Severity.WARNING if large and why is None else Severity.INFO,
        metric="loss_mean",
        value=correlation,
        threshold=limits.correlation,
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.INTERVAL}),
    reads=("loss",),
    uses=("update_ratio", "lr"),
    limits=Limits(),
    find=find,
    fix="Divide the learning rate by 3 to 10, warm it up over the first few hundred steps and let it decay.",
    snippet=(
        "for group in optimizer.param_groups:\n"
        "    group['lr'] /= 5  # where a scheduler sets it, divide its base rate instead\n"
    ),
    resolve_after=2,
)
