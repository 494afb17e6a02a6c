"""What was learned on one set is lost while another set gets better.

What it detects
    A metric that is given per task or set (``watch.epoch(val_accuracy={"old": …, "new": …})``, or
    ``eval_old_accuracy`` beside ``eval_new_accuracy``) has fallen in the last three evaluations by more than
    20 % below the set's own best level, and by more than its noise, while another set has got better since.

Why it matters
    New training overwrites what the weights held for the older set (catastrophic forgetting). A mean over
    all sets hides it.

What to do
    Mix samples of the older set into the batches (replay), lower the learning rate, or freeze the layers
    that both share.

When it is fine
    Where the older set no longer matters. Classes of one task trade places while a model learns, so recall,
    precision, F1, IoU and AP per key are taken for classes and only noted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Values
from torchwatch.checks.loss._metrics import lower_is_better, says_quality, sets, tail, words
from torchwatch.history import History, Series
from torchwatch.statistics import rolling_median, wiggle
from torchwatch.text import number, percent, printable

_MOST_SETS = 32
_LEVEL = 3
_OF_CLASSES = frozenset({"recall", "precision", "f1", "iou", "dice", "ap", "sensitivity", "specificity"})


@dataclass(frozen=True)
class Limits:
    """When a set is forgotten. A guard at 0 is off.

    Attributes:
        fall: smallest fall below the set's best level (share of it).
        evals: guard: last evaluations that must all lie so low (evaluations).
        sigmas: guard: smallest fall, and smallest gain of another set, in σ of the metric (σ).
        other: guard: smallest gain of another set since (share).
        classes: guard: 1 only notes it for metrics that are given per class (switch).
    """

    fall: float = 0.2
    evals: int = 3
    sigmas: float = 3.0
    other: float = 0.05
    classes: int = 1


class _Set(NamedTuple):
    """A metric on one set, turned so that more is better."""

    name: str
    steps: np.ndarray[tuple[int], np.dtype[np.int64]]
    values: Values


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the set that has lost most."""
    if not history.evals:
        return NotReady("no evaluation yet")
    metrics = {m: names for m, names in _named(history).items() if "loss" in words(m) or says_quality(m)}
    if not metrics:
        return NotReady("no metric is given for two or more sets")
    found: list[Finding] = []
    for metric, names in metrics.items():
        every = [_read(history, metric, name) for name in list(names.values())[:_MOST_SETS]]
        found += [f for one in every if (f := _forgotten(metric, one, every, limits)) is not None]
    return [max(found, key=lambda f: f.value or 0.0)] if found else []


def _named(history: History) -> dict[str, dict[str, str]]:
    """Metrics per set among the last evaluations, which may come one set at a time."""
    names: dict[str, None] = {}
    for record in reversed(history.evals[-_MOST_SETS:]):
        if names.keys() >= record.metrics.keys():
            break
        names |= dict.fromkeys(record.metrics)
    return sets(names)


def _read(history: History, metric: str, name: str) -> _Set:
    series: Series = tail(history.eval_series(name))
    values = -series.values if lower_is_better(metric) else series.values
    return _Set(name, series.steps, values)


def _forgotten(metric: str, one: _Set, every: list[_Set], limits: Limits) -> Finding | None:
    recent = max(1, limits.evals)
    count = one.values.size
    if count < recent + _LEVEL:
        return None
    now, highest = float(one.values[-recent:].max()), float(one.values.max())
    if highest - now <= limits.fall * abs(highest):
        return None
    levels = rolling_median(one.values[:-recent], _LEVEL)[_LEVEL - 1 :]
    at = int(levels.argmax())
    best = float(levels[at])
    # The best of n noisy levels lies √(2 ln n) σ high by luck alone.
    sigmas = limits.sigmas + math.sqrt(2 * math.log(count)) if limits.sigmas else 0.0
    least = max(limits.fall * abs(best), sigmas * wiggle(one.values) if limits.sigmas else 0.0)
    if not best - now > least:
        return None
    peak = int(one.steps[at + _LEVEL - 1])
    gained = [other for other in every if other is not one and _gained(other, peak, limits)]
    if not gained:
        return None
    sign = -1.0 if lower_is_better(metric) else 1.0
    class_like = bool(limits.classes) and not _OF_CLASSES.isdisjoint(words(metric))
    names = ", ".join(printable(other.name, 60) for other in gained[:3])
    return Finding(
        title=f"{printable(one.name, 80)} fell from {number(sign * best)} to {number(sign * now)}",
        since_step=peak,
        detail=f"{percent((best - now) / abs(best) if best else math.inf)} worse than its best level at step "
        f"{peak}, in each of the last {recent} evaluations, while {names} got better."
        + (" Only noted, because classes of one task trade places." if class_like else ""),
        severity=Severity.INFO if class_like else Severity.WARNING,
        metric=printable(one.name),
        value=(best - now) / abs(best) if best else math.inf,
        threshold=limits.fall,
    )


def _gained(other: _Set, peak: int, limits: Limits) -> bool:
    """Whether another set is better now than when the first was at its best."""
    before = other.values[other.steps <= peak][-_LEVEL:]
    after = other.values[other.steps > peak][-_LEVEL:]
    if not before.size or not after.size:
        return False
    then, now = float(np.median(before)), float(np.median(after))
    sigma = limits.sigmas * wiggle(other.values) if limits.sigmas else 0.0
    return now - then > max(limits.other * abs(then), sigma)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOSS,
    cause=Cause.OTHER,
    when=frozenset({On.EVAL}),
    reads=(),
    limits=Limits(),
    find=find,
    fix="Mix samples of the older set into the batches, lower the learning rate, or freeze shared layers.",
    resolve_after=2,
)
