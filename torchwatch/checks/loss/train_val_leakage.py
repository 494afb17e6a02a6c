"""Validation looks as if it had been trained on.

What it detects
    In three evaluations in a row a validation metric equals its training twin (``val_accuracy`` and
    ``train_accuracy`` or ``accuracy``) to four digits, with values that change. Or the validation loss lies
    below the training loss of the steps that follow it by more than 10 % and 3 σ, although the model has no
    dropout and no augmentation was declared. Images are taken for augmented unless that is declared too
    (``declare={"augmentation": False}``), and nothing is said where the layers were not seen.

Why it matters
    If validation samples are in the training set, validation says nothing about new data, and every choice
    that is made by it is made on the wrong side.

What to do
    Look for samples, or groups such as patients and files, on both sides, and split by group. ``torchwatch
    data`` compares the sets themselves; only that gives certainty.

When it is fine
    A validation set can be easier, and a training loss can have terms that validation does not have (weight
    decay, label smoothing, augmentation that was not declared). It is never more than a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Steps, Values
from torchwatch.checks.loss._levels import train_levels
from torchwatch.checks.loss._metrics import tail
from torchwatch.history import History, Series
from torchwatch.statistics import wiggle
from torchwatch.text import number, percent, printable

_TRIVIAL = frozenset({0.0, 1.0, 100.0})
_PREFIXES = ("val_", "valid_", "validation_", "eval_", "test_")
_LEAST_EVALS = 6
_IMAGE_AXES = 4
_RECENT = 8
_Epochs = Mapping[int, Mapping[str, float | None]]
_RATES = ("dropout", "drop_prob", "dropout_p")


@dataclass(frozen=True)
class Limits:
    """When validation looks too good. A guard at 0 is off.

    Attributes:
        evals: evaluations in a row (evaluations).
        digits: significant digits to which validation and training must be equal (digits).
        sigmas: smallest distance of the validation loss below the training loss (σ of their difference).
        below: guard: and as large a share of the training loss (share).
        dropout: guard: 1 says nothing of losses where the model has dropout (switch).
        augmentation: guard: 1 says nothing of losses where augmentation was declared, nor of images (or
            anything else of four axes or more) where it was not declared to be absent (switch).
        warm_up: guard: 1 leaves out evaluations within warm-up (switch).
    """

    evals: int = 3
    digits: int = 4
    sigmas: float = 3.0
    below: float = 0.1
    dropout: int = 1
    augmentation: int = 1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding: equal metrics, else a validation loss that is too low."""
    needed = max(1, limits.evals)
    if len(history.evals) < needed:
        return NotReady(f"needs {needed} evaluations, {len(history.evals)} seen")
    equal = _equal(history, needed, limits)
    if equal is not None:
        return [equal]
    name = history.val_loss_name()
    if name is None:
        return []
    low = _too_low(history, name, needed, limits)
    return [] if low is None else [low]


def _equal(history: History, needed: int, limits: Limits) -> Finding | None:
    """The first metric that is the same on both sides."""
    epochs = {e.step: e.metrics for e in history.epochs[-_RECENT:]}
    for name in history.evals[-1].metrics:
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is None or "." in name:
            continue
        stem = name.removeprefix(prefix)
        logged = [history.series(f"metrics.{n}") for n in (f"train_{stem}", stem)]
        if not logged[0].steps.size and not logged[1].steps.size and not _in_epochs(epochs, stem):
            continue
        pairs = _equal_pairs(tail(history.eval_series(name)), epochs, logged, stem, limits)[-needed:]
        values = {v for _, v, _ in pairs}
        if len(pairs) == needed and len(values) > 1 and values.isdisjoint(_TRIVIAL):
            last = ", ".join(number(v) for _, v, _ in pairs)
            shown = printable(name, 60)
            return Finding(
                title=f"{shown} equals its training value in {needed} evaluations",
                since_step=pairs[0][0],
                detail=f"Both were {last}, to {limits.digits} digits. Is it measured on the same samples?",
                metric=shown,
                value=pairs[-1][1],
                threshold=pairs[-1][2],
            )
    return None


def _rounded(value: float, limits: Limits) -> str:
    return f"{value:.{max(1, limits.digits)}g}"


def _in_epochs(epochs: _Epochs, stem: str) -> bool:
    return any(stem in metrics or f"train_{stem}" in metrics for metrics in epochs.values())


def _equal_pairs(
    series: Series, epochs: _Epochs, logged: list[Series], stem: str, limits: Limits
) -> list[tuple[int, float, float]]:
    """Step, validation and training value of the last evaluations in a row in which both are equal.

    Evaluations whose training value is not known are passed over: that of an epoch comes after its
    evaluation.
    """
    found: list[tuple[int, float, float]] = []
    recent = list(zip(series.steps.tolist(), series.values.tolist(), strict=True))[-_RECENT:]
    for step, value in reversed(recent):
        twin = _twin(epochs.get(step, {}), logged, step, stem)
        if twin is None or not math.isfinite(twin):
            continue
        if _rounded(value, limits) != _rounded(twin, limits):
            break
        found.insert(0, (step, value, twin))
    return found


def _twin(metrics: Mapping[str, float | None], logged: list[Series], step: int, stem: str) -> float | None:
    """The training value of an epoch's end, else what was logged in that step."""
    for name in (f"train_{stem}", stem):
        value = metrics.get(name)
        if value is not None:
            return value
    for steps, values in logged:
        at = int(np.searchsorted(steps, step))
        if at < steps.size and steps[at] == step:
            return float(values[at])
    return None


def _too_low(history: History, name: str, needed: int, limits: Limits) -> Finding | None:
    if limits.augmentation and _may_be_augmented(history):
        return None
    val = tail(history.eval_series(name))
    if val.values.size < max(needed + 1, _LEAST_EVALS) or not val.values[-needed - 1 :].min() > 0:
        return None
    # An epoch's mean lags behind its end, so validation is compared with the steps that came after it.
    after = train_levels(history, val.steps[-needed - 1 :])[1:]
    before = val.values[-needed - 1 : -1]
    if not (before < (1 - limits.below) * after).all() or (limits.dropout and _has_dropout(history)):
        return None
    sigma = math.hypot(wiggle(val.values), _train_error(history, val.steps, needed))
    if not (after - before > limits.sigmas * sigma).all():
        return None
    since = int(val.steps[-needed - 1])
    if limits.warm_up and since <= history.warm_up_end():
        return None
    return _low(printable(name, 60), since, before, after, sigma, limits)


def _low(shown: str, since: int, before: Values, after: Values, sigma: float, limits: Limits) -> Finding:
    now, train = float(before[-1]), float(after[-1])
    return Finding(
        title=f"{shown} is {percent(1 - now / train)} below the training loss",
        since_step=since,
        detail=f"{shown} {', '.join(number(float(v)) for v in before)}; the training loss after each of them "
        f"{', '.join(number(float(v)) for v in after)}; σ {number(sigma)}. No dropout layer was seen.",
        metric=shown,
        value=now,
        threshold=(1 - limits.below) * train,
    )


def _train_error(history: History, evals: Steps, needed: int) -> float:
    """Standard error of the mean training loss between two evaluations."""
    spread = history.interval_series("loss_std").values[-needed:]
    spread = spread[np.isfinite(spread)]
    length = float(np.median(np.diff(evals[-needed - 1 :])))
    return float(np.median(spread)) / math.sqrt(max(1.0, length)) if spread.size else 0.0


def _may_be_augmented(history: History) -> bool:
    declared = history.declared.get("augmentation")
    if declared is not None:
        return bool(declared)
    called = [x for x in history.layout.layers if x.order is not None] if history.layout is not None else []
    first = min(called, key=lambda x: x.order or 0, default=None)
    return first is not None and any(len(shape) >= _IMAGE_AXES for shape in first.inputs)


def _has_dropout(history: History) -> bool:
    """Whether a layer drops something, as far as its type and its numbers tell; True where none was seen."""
    layers = history.layout.layers if history.layout is not None else ()
    for layer in layers:
        names = ("p", *_RATES) if "Drop" in layer.type else _RATES
        rates = [r for n in names if isinstance(r := layer.attributes.get(n), (int, float))]
        if any(rates) or ("Drop" in layer.type and not rates):
            return True
    return not layers


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.OTHER,
    # Of an epoch that gives both sides at once, the training side is known only when the epoch is over.
    when=frozenset({On.EVAL, On.EPOCH}),
    reads=(),
    uses=("loss", "val_loss"),
    limits=Limits(),
    find=find,
    fix="Look for the same samples or groups on both sides (`torchwatch data`), and split by group.",
    resolve_after=4,
)
