"""Gradients are accumulated, but the loss is not divided by the number of passes.

What it detects
    The number of forward passes per step changed, as when accumulation begins, and with it the gradient norm:
    by the same factor, or by its root at least, for that is how gradients add up that are mostly noise. (Of
    a divided loss the norm stays, or falls by the root.) The loss did not change. It can be told only where
    both sides were seen: a run that accumulates from its first step on gives no comparison.

Why it matters
    The gradient of k passes is then k times as large: SGD takes steps k times too long, clipping cuts where
    it should not, and a last, shorter step of an epoch weighs less than the others.

What to do
    Divide the loss of every pass by the number of passes before ``backward()``.

When it is fine
    With Adam and without clipping the scale of a gradient hardly matters, and losses that are sums over a
    batch are meant to grow with it. It is never more than a note.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history import History, Series, Stretch
from torchwatch.statistics import log_scale
from torchwatch.text import number


@dataclass(frozen=True)
class Limits:
    """When accumulation is not divided. A guard at 0 is off.

    Attributes:
        factor: smallest change of the number of passes (ratio).
        exponent: smallest power of that factor by which the gradient norm grew: 0.5 for noise alone (power).
        most_exponent: largest such power: 1 for gradients without noise (power).
        steps: steps that must have been seen on each side (steps).
        most_steps: nearest steps on each side that are compared (steps).
        sigmas: guard: smallest change of the gradient norm, in σ of the difference (σ).
        loss: guard: largest change of the loss at the same place (ratio).
    """

    factor: float = 2.0
    exponent: float = 0.4
    most_exponent: float = 1.25
    steps: int = 5
    most_steps: int = 50
    sigmas: float = 4.0
    loss: float = 1.25


class _Side(NamedTuple):
    """Steps with the same number of passes: the first and the last at which it was seen."""

    passes: int
    first: int
    last: int


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the last change of the number of passes."""
    sides = _sides(history)
    if len(sides) < 2:
        return NotReady("the number of forward passes per step has not changed")
    few, many = sorted(sides[-2:], key=lambda side: side.passes)
    factor = many.passes / max(1, few.passes)
    if factor < limits.factor:
        return []
    late = sides[-1]
    if late.last - late.first + 1 < limits.steps:
        return NotReady(f"needs {limits.steps} steps with {late.passes} passes")
    norms = _norms(history)
    small = _nearest(norms, few, limits, early=few is not late)
    large = _nearest(norms, many, limits, early=many is not late)
    if min(small.size, large.size) < max(2, limits.steps):
        return []
    one, other = log_scale(small), log_scale(large)
    change = math.log(other.level / one.level) if min(one.n, other.n) > 1 else 0.0
    power = change / math.log(factor)
    error = 1.2533 * math.hypot(one.sigma / math.sqrt(small.size), other.sigma / math.sqrt(large.size))
    if not limits.exponent <= power <= limits.most_exponent or change <= limits.sigmas * error:
        return []
    if limits.loss and not _same_loss(history, few, many, limits, late=late):
        return []
    return [
        Finding(
            title=f"Gradients are {math.exp(change):.3g} times as large with {many.passes} passes per step",
            since_step=many.first,
            detail=f"Median norm {number(one.level)} with {few.passes} passes per step, "
            f"{number(other.level)} with {many.passes}; the loss stayed as it was.",
            metric="grad_norm",
            value=math.exp(change),
            threshold=factor**limits.exponent,
        )
    ]


def _sides(history: History) -> list[_Side]:
    """Runs of sampled steps with the same number of forward passes, oldest first."""
    stretches = history.stretches("inputs")
    if not stretches or _passes(stretches[0]) == _passes(stretches[-1]):
        return []
    sides: list[_Side] = []
    for stretch in stretches:
        passes = _passes(stretch)
        if sides and sides[-1].passes == passes:
            sides[-1] = sides[-1]._replace(last=stretch.last)
        elif passes:
            sides.append(_Side(passes, stretch.first, stretch.last))
    return sides


def _passes(stretch: Stretch) -> int:
    """Forward passes per step; 0 where they were not counted."""
    passes = stretch.value.get("passes") if isinstance(stretch.value, dict) else None
    return passes if isinstance(passes, int) and passes > 0 else 0


def _norms(history: History) -> Series:
    """Gradient norms before clipping where that was seen."""
    before = history.series("grad_norm_preclip")
    return before if before.values.size else history.series("grad_norm")


def _nearest(series: Series, side: _Side, limits: Limits, *, early: bool) -> np.ndarray[tuple[int], np.dtype]:
    """The finite values of a side that are nearest to the change."""
    inside = series.values[(series.steps >= side.first) & (series.steps <= side.last)]
    inside = inside[np.isfinite(inside)]
    return inside[-limits.most_steps :] if early else inside[: limits.most_steps]


def _same_loss(history: History, few: _Side, many: _Side, limits: Limits, *, late: _Side) -> bool:
    losses = history.series("loss")
    one = _nearest(losses, few, limits, early=few is not late)
    other = _nearest(losses, many, limits, early=many is not late)
    if not one.size or not other.size:
        return True
    before, after = float(np.median(one)), float(np.median(other))
    return before > 0 and 1 / limits.loss <= after / before <= limits.loss


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.WIRING,
    when=frozenset({On.INTERVAL}),
    reads=("inputs", "grad_norm"),
    uses=("grad_norm_preclip", "loss"),
    limits=Limits(),
    find=find,
    fix="Divide the loss of every pass by the number of passes before backward().",
    snippet=(
        "for i, (x, y) in enumerate(loader):\n"
        "    loss = loss_function(model(x), y) / passes\n"
        "    loss.backward()\n"
        "    if (i + 1) % passes == 0:\n"
        "        optimizer.step()\n"
        "        optimizer.zero_grad()\n"
    ),
    resolve_after=10,
)
