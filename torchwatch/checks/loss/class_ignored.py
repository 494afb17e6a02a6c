"""The model leaves out a class, or answers with one class only.

What it detects
    Per-class values were given (``watch.epoch(val_recall={"cat": …})``), and in three evaluations in a row a
    class's recall or accuracy was below 5 % while overall it was at least 50 %. Or one class is found always
    and all others never; or, where the predictions per class were given (``val_predictions={…}``), more than
    95 % of them were one class.

Why it matters
    A rare class costs little loss when it is left out, so overall accuracy looks fine while the model never
    gives the answer that may matter most.

What to do
    Weight the loss by class, or resample, so that every class is seen; look whether the class is labelled as
    it should be, and judge by balanced accuracy or macro F1.

When it is fine
    Early in training rare classes come last: as long as the class or the whole still improves, it is only
    noted. So it is after fewer than six such evaluations, unless the model meanwhile learned without any use
    for validation: the training loss fell from each of them to the next, the validation loss did not. Among
    more than 100 classes, of which some are always hard, it is only noted, too. A class without a sample in
    the evaluation looks the same where its recall is given as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._levels import train_levels
from torchwatch.checks.loss._metrics import keyed, tail, words
from torchwatch.history import History
from torchwatch.text import percent, printable

_RECALLS = frozenset({"recall", "sensitivity", "tpr", "accuracy", "acc"})
_PREDICTIONS = frozenset({"prediction", "predictions", "predicted"})
_LOOK_BACK = 64
_NAMED = 5


@dataclass(frozen=True)
class Limits:
    """When a class is ignored. A guard at 0 is off.

    Attributes:
        recall: recall below which a class is ignored (share).
        overall: smallest overall recall or accuracy (share).
        predictions: share of the predictions above which one class is all there is (share).
        evals: evaluations in a row (evaluations).
        patience: guard: for a warning, as many evaluations in a row, unless the training loss fell and the
            validation loss did not (evaluations).
        improvement: guard: only noted while class or whole rose by more than this over these (share).
        most_classes: guard: only noted among more classes (classes).
        largest_share: guard: nothing is said of predictions of one class where as large a share of the
            targets is of one class (share); only noted where that is not known.
    """

    recall: float = 0.05
    overall: float = 0.5
    predictions: float = 0.95
    evals: int = 3
    patience: int = 6
    improvement: float = 0.01
    most_classes: int = 100
    largest_share: float = 0.8


class _Evaluation(NamedTuple):
    """One evaluation: values per class as shares, their overall value, and its step."""

    step: int
    classes: dict[str, float]
    overall: float


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding for recalls and one for predictions."""
    base = _base(history, _RECALLS)
    counted = _base(history, _PREDICTIONS)
    if base is None and counted is None:
        return NotReady("no recall, accuracy or predictions per class in the evaluations")
    return [
        *(_of_recalls(history, base, limits) if base is not None else ()),
        *(_of_predictions(history, counted, limits) if counted is not None else ()),
    ]


def _base(history: History, meant: frozenset[str]) -> str | None:
    """The dictionary among the metrics of the last evaluation whose name says what is meant."""
    if not history.evals:
        return None
    bases = dict.fromkeys(n.partition(".")[0] for n in history.evals[-1].metrics if "." in n)
    return next((b for b in bases if not meant.isdisjoint(words(b))), None)


def _evaluations(history: History, base: str) -> list[_Evaluation]:
    """The last ones with values of at least two classes, oldest first."""
    found: list[_Evaluation] = []
    overall: float | None = None
    for record in history.evals[-_LOOK_BACK:]:
        overall = _overall(record.metrics, base, overall)
        classes = keyed(record.metrics).get(base, {})
        if len(classes) > 1:
            scale = 100.0 if max(classes.values()) > 1 else 1.0
            shares = {name: value / scale for name, value in classes.items()}
            mean = sum(shares.values()) / len(shares)
            found.append(_Evaluation(record.step, shares, mean if overall is None else overall))
    return found


def _overall(metrics: Mapping[str, float | None], base: str, before: float | None) -> float | None:
    """Overall accuracy of the evaluation, as a share; the value before where this one has none."""
    prefix = base.partition("_")[0]
    for name in (f"{prefix}_accuracy", f"{prefix}_acc", base):
        value = metrics.get(name)
        if value is not None:
            return value / 100 if value > 1 else value
    return before


def _ignored(evaluation: _Evaluation, limits: Limits) -> set[str]:
    """Classes that are left out."""
    low = {name for name, value in evaluation.classes.items() if value < limits.recall}
    only = len(low) == len(evaluation.classes) - 1 and max(evaluation.classes.values()) > limits.predictions
    return low if only or evaluation.overall >= limits.overall else set()


def _of_recalls(history: History, base: str, limits: Limits) -> list[Finding]:
    newest = keyed(history.evals[-1].metrics).get(base, {})
    if not newest or min(newest.values()) >= limits.recall * (100.0 if max(newest.values()) > 1 else 1.0):
        return []
    evaluations = _evaluations(history, base)
    needed = max(1, limits.evals)
    each = [_ignored(e, limits) for e in evaluations]
    if len(each) < needed:
        return []
    ignored = set.intersection(*each[-needed:])
    if not ignored:
        return []
    start = len(each) - 1
    while start and ignored <= each[start - 1]:
        start -= 1
    now = evaluations[-1]
    reason = _excuse(history, evaluations[start:], ignored, limits)
    names = ", ".join(printable(n, 40) for n in sorted(ignored)[:_NAMED])
    more = f" and {len(ignored) - _NAMED} more" if len(ignored) > _NAMED else ""
    lowest = min(ignored, key=lambda n: (now.classes[n], n))
    what = "class" if len(ignored) == 1 else "classes"
    return [
        Finding(
            title=f"{printable(base, 60)} of {what} {names}{more} is {percent(now.classes[lowest])}",
            since_step=evaluations[start].step,
            detail=f"So it was in {len(each) - start} evaluations; overall {percent(now.overall)}, of "
            f"{len(now.classes)} classes. A class without samples there would look the same."
            + (f" Only noted, because {reason}." if reason else ""),
            severity=Severity.INFO if reason else Severity.WARNING,
            metric=printable(f"{base}.{lowest}"),
            value=now.classes[lowest],
            threshold=limits.recall,
        )
    ]


def _excuse(
    history: History, evaluations: list[_Evaluation], ignored: set[str], limits: Limits
) -> str | None:
    """Why a class may come yet; the evaluations are those in which it was ignored."""
    if limits.most_classes and len(evaluations[-1].classes) > limits.most_classes:
        return f"of more than {limits.most_classes} classes some are always hard"
    if len(evaluations) < limits.patience and not _learns_in_vain(history, limits):
        return f"it takes {limits.patience} evaluations to be sure"
    before, now = evaluations[-max(2, limits.patience) :][0], evaluations[-1]
    rises = now.overall - before.overall > limits.improvement
    comes = any(now.classes[n] - before.classes.get(n, 0.0) > limits.improvement for n in ignored)
    return "it still improves" if limits.improvement and (rises or comes) else None


def _learns_in_vain(history: History, limits: Limits) -> bool:
    """Whether the training loss fell from each of the last evaluations to the next, the validation loss not.

    On the plateau on which a slow start waits both stand still, and in a healthy start both fall.
    """
    name = history.val_loss_name()
    if name is None:
        return False
    val = tail(history.eval_series(name))
    count = max(3, limits.evals)
    if val.values.size < count:
        return False
    train = train_levels(history, val.steps)[-count:]
    return bool((np.diff(train) < 0).all()) and val.values[-1] >= val.values[-count]


def _of_predictions(history: History, base: str, limits: Limits) -> list[Finding]:
    counts = [(r.step, c) for r in history.evals[-_LOOK_BACK:] if (c := keyed(r.metrics).get(base))]
    shares = [(step, _largest(c)) for step, c in counts if len(c) > 1 and sum(c.values()) > 0]
    since = len(shares)
    while since and shares[since - 1][1][1] > limits.predictions:
        since -= 1
    length = len(shares) - since
    if length < max(1, limits.evals):
        return []
    known = _largest_target(history)
    if known is not None and limits.largest_share and known >= limits.largest_share:
        return []
    name, share = shares[-1][1]
    sure = known is not None and length >= limits.patience
    targets = "not seen" if known is None else f"at most {percent(known)} of one class"
    return [
        Finding(
            title=f"{percent(share)} of the predictions are class {printable(name, 40)}",
            since_step=shares[since][0],
            detail=f"So it was in {length} evaluations. Targets: {targets}.",
            severity=Severity.WARNING if sure or not limits.largest_share else Severity.INFO,
            metric=printable(f"{base}.{name}"),
            value=share,
            threshold=limits.predictions,
        )
    ]


def _largest(counts: Mapping[str, float]) -> tuple[str, float]:
    name = max(counts, key=lambda n: counts[n])
    return name, counts[name] / sum(counts.values())


def _largest_target(history: History) -> float | None:
    """Share of the most frequent class among the training targets, where it was seen."""
    for stretch in reversed(history.stretches("targets")):
        share = stretch.value.get("largest_share") if isinstance(stretch.value, Mapping) else None
        if isinstance(share, (int, float)):
            return float(share)
    return None


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOSS,
    cause=Cause.OTHER,
    when=frozenset({On.EVAL}),
    reads=(),
    uses=("targets",),
    limits=Limits(),
    find=find,
    fix="Weight the loss by class or resample, and judge by balanced accuracy or macro F1.",
    snippet=(
        "counts = torch.bincount(labels, minlength=classes)\n"
        "loss_function = torch.nn.CrossEntropyLoss(weight=counts.sum() / (classes * counts))\n"
    ),
    resolve_after=1,
)
