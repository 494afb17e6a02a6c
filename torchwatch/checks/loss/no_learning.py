"""The loss has never come down from where it started.

What it detects
    After at least five intervals and 200 steps, warm-up not counted, no interval's loss lies more than 1 %
    and 2 σ below the first one's. Where the model has K outputs the level is compared with ln K, the loss
    of guessing among K classes. It takes that long because a slow start looks the same: labels that were
    shuffled are told from a plateau that will end only by waiting.

Why it matters
    The model has learned nothing. More steps of the same will not change that.

What to do
    Check the wiring first: are the parameters in the optimizer, is the loss attached to the model's output,
    are labels and inputs in the same order? Then try to overfit one batch: a model that cannot do that has a
    bug. Then raise or lower the learning rate by a factor of 10, and normalise the inputs.

When it is fine
    Fine-tuning and resumed runs begin near their final loss, and adversarial or reinforcement losses are not
    made to fall: there it is only noted. Declare them (``declare={"fine_tuning": True}``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Curve, curve, has_signs, most_fallen, plays_against_itself
from torchwatch.history import History
from torchwatch.records import Layout
from torchwatch.text import number

_START = 10


@dataclass(frozen=True)
class Limits:
    """When nothing was learned. A guard at 0 is off.

    Attributes:
        fall: smallest relative fall below the first interval's level that is learning (share).
        intervals: intervals after the first that must have been seen (intervals); fewer than five cannot tell
            a slow start from none.
        steps: steps after warm-up that must have been seen (steps).
        sigmas: guard: a fall counts as learning only beyond as many σ of an interval mean (σ).
        precision: guard: silent while noise could hide a fall of more than this (share).
        risen: guard: silent where the loss lies further above its first level: it diverges (share).
        warm_up: guard: 1 leaves warm-up out of ``intervals`` and ``steps`` (switch).
        chance_share: guard: where ln K is known, a level further below it than this is only noted, because
            the model was not fresh (share).
        excuses: guard: 1 only notes it for fine-tuning, resumed, adversarial, reinforcement and negative
            losses (switch).
    """

    fall: float = 0.01
    intervals: int = 5
    steps: int = 200
    sigmas: float = 2.0
    precision: float = 0.05
    risen: float = 0.1
    warm_up: int = 1
    chance_share: float = 0.1
    excuses: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while the loss has never left its first level."""
    losses = curve(history)
    reason = _too_early(history, losses, limits)
    if reason is not None:
        return NotReady(reason)
    first = float(losses.mean[0])
    if not first:
        return []
    if limits.risen and losses.mean[-1] - first > limits.risen * abs(first):
        return []
    lowest = 1 + int(losses.mean[1:].argmin())
    best = float(losses.mean[lowest])
    # The lowest of n noisy means lies √(2 ln n) σ low by luck alone.
    luck = limits.sigmas + math.sqrt(2 * math.log(losses.mean.size - 1)) if limits.sigmas else 0.0
    sigma = math.hypot(limits.sigmas * float(losses.error[0]), luck * float(losses.error[lowest]))
    guessing = _level_of_guessing(history, losses, limits)
    # A start that was worse than guessing and then fell to guessing is no learning.
    level = first if guessing is None else min(first, guessing)
    if level - best > max(limits.fall * abs(first), sigma):
        return []
    if guessing is None and _fell_at_once(history, losses, limits):
        return []
    if limits.precision and most_fallen(losses, level) > limits.precision * abs(first):
        return NotReady("the loss is too noisy to tell whether it falls")
    return [_finding(history, losses, best, limits)]


def _too_early(history: History, losses: Curve, limits: Limits) -> str | None:
    if not losses.mean.size:
        return "no interval with a loss yet"
    begin = max(history.warm_up_end(), 0) if limits.warm_up else 0
    counted = int((losses.first_step[1:] > begin).sum())
    if counted < limits.intervals:
        return f"needs {limits.intervals} intervals after the first and warm-up, {counted} seen"
    steps = int(losses.last_step[-1]) - max(begin, int(losses.first_step[0]) - 1)
    return f"needs {limits.steps} steps after warm-up, {steps} seen" if steps < limits.steps else None


def _level_of_guessing(history: History, losses: Curve, limits: Limits) -> float | None:
    """The loss of guessing, ln K, where K is known and the loss lies there now."""
    chance = _chance(history.layout)
    if chance is None or abs(float(losses.mean[-1]) / chance[1] - 1) >= limits.precision:
        return None
    return chance[1]


def _fell_at_once(history: History, losses: Curve, limits: Limits) -> bool:
    """Whether the very first steps lay certainly above all that followed: the first interval hides that."""
    now = float(losses.mean[-1])
    if not limits.sigmas:
        return False
    early = history.first("loss", _START).values
    early = early[np.isfinite(early)]
    falls = [
        (float(early[:count].mean()) - now) / (float(losses.spread[-1]) / math.sqrt(count) or math.inf)
        for count in (1, 3, _START)
        if early.size >= count and float(early[:count].mean()) - now > limits.fall * abs(now)
    ]
    return max(falls, default=0.0) > 2 * limits.sigmas


def _chance(layout: Layout | None) -> tuple[int, float] | None:
    """K and ln K, where K ≥ 2 is the width of the layer called last that has one."""
    called = [layer for layer in layout.layers if layer.order is not None] if layout else []
    for layer in sorted(called, key=lambda layer: layer.order or 0, reverse=True):
        width = layer.attributes.get("out_features", layer.attributes.get("out_channels"))
        if isinstance(width, int) and not isinstance(width, bool):
            return (width, math.log(width)) if width > 1 else None
    return None


def _excuse(history: History) -> str | None:
    """Why the first level need not be that of a fresh model."""
    if history.declared.get("fine_tuning"):
        return "the run is declared fine-tuning"
    if history.intervals[0].first_step > 1:
        return "the run was resumed"
    if has_signs(history):
        return "the loss can be negative"
    if history.layout is not None and any(not p.trainable for p in history.layout.parameters):
        return "parts of the model are frozen, as in fine-tuning"
    return plays_against_itself(history)


def _finding(history: History, losses: Curve, best: float, limits: Limits) -> Finding:
    first, now = float(losses.mean[0]), float(losses.mean[-1])
    chance = _chance(history.layout)
    excuse = _excuse(history) if limits.excuses else None
    if excuse is None and chance and limits.chance_share and first < (1 - limits.chance_share) * chance[1]:
        excuse = f"the run began well below ln {chance[0]} = {number(chance[1])}, so the model was not fresh"
    near = chance is not None and abs(now / chance[1] - 1) <= max(limits.chance_share, 0.05)
    compared = f" Guessing among {chance[0]} classes gives {number(chance[1])}." if chance and near else ""
    fall = 100 * (first - best) / abs(first)
    return Finding(
        title=f"Loss still {number(now)} after {history.step} steps: nothing learned"
        + (" (level of guessing)" if near and excuse is None else ""),
        since_step=int(losses.first_step[0]),
        detail=f"First interval {number(first)}, best since {number(best)} ({fall:.2g} % lower).{compared}"
        + (f" Only noted, because {excuse}." if excuse else ""),
        severity=Severity.WARNING if excuse is None else Severity.INFO,
        metric="loss_mean",
        value=now,
        threshold=(1 - limits.fall) * first,
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
    fix=(
        "Check that the optimizer holds this model's parameters and that labels match inputs, try to overfit "
        "one batch, then change the learning rate by a factor of 10 either way and normalise the inputs."
    ),
    snippet=(
        "x, y = next(iter(loader))  # a sound model drives the loss of one batch towards 0\n"
        "for _ in range(200):\n"
        "    optimizer.zero_grad()\n"
        "    loss = loss_function(model(x), y)\n"
        "    loss.backward()\n"
        "    optimizer.step()\n"
    ),
    resolve_after=1,
)
