"""Scores of a classification, and the sentences for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._scored import Decisions
from torchwatch.results import Remark
from torchwatch.results.predictions import ClassScores
from torchwatch.statistics import classification, metrics
from torchwatch.text import number, percent, printable

Integers = npt.NDArray[np.int64]

ONE_CLASS = 0.99
"""One class takes at least this share of the decisions: collapsed, unless nearly all targets are of it."""

MISCALIBRATED = 0.05
SHOWN_CLASSES = 40
_LEAST_DECISIONS = 10
_LEAST_SUPPORT = 5


def class_scores(decisions: Decisions, names: Sequence[str], rng: np.random.Generator) -> ClassScores:
    """Scores over all decisions; per label for multilabel tasks.

    Args:
        decisions: those that count.
        names: of the classes, or of the labels.
        rng: for the calibration error that chance gives.
    """
    table = _by_label(decisions) if decisions.labels > 1 else _by_class(decisions)
    shown, shown_names = _confusion(decisions, names)
    calibrated = classification.calibration(decisions.confidence, decisions.right)
    return ClassScores(
        names=tuple(names[c] for c in table.classes),
        classes=table.classes,
        count=int(decisions.true.size),
        accuracy=classification.accuracy(decisions.true, decisions.predicted),
        balanced_accuracy=_balanced(decisions, table),
        f1_macro=float(metrics.mean(table.f1[np.isfinite(table.f1)])),
        nll=float(metrics.mean(-decisions.log_likelihood)),
        ece=calibrated.ece,
        ece_by_chance=classification.ece_by_chance(decisions.confidence, rng),
        confidence=float(metrics.mean(decisions.confidence)),
        support=table.support,
        predicted=table.predicted,
        precision=table.precision,
        recall=table.recall,
        f1=table.f1,
        confusion=shown,
        confusion_names=shown_names,
    )


def _by_class(decisions: Decisions) -> classification.ByClass:
    return classification.by_class(decisions.true, decisions.predicted)


def _by_label(decisions: Decisions) -> classification.ByClass:
    """Each label as a yes: how often true, predicted, both."""
    count = decisions.labels

    def counted(chosen: npt.NDArray[np.bool_]) -> Integers:
        return np.bincount(decisions.label[chosen], minlength=count).astype(np.int64)

    true, said = decisions.true == 1, decisions.predicted == 1
    support, predicted, right = counted(true), counted(said), counted(true & said)
    return classification.ByClass(
        np.arange(count), support, predicted, right,
        metrics.over(right, predicted), metrics.over(right, support),
        metrics.over(2 * right, support + predicted),
    )  # fmt: skip


def _balanced(decisions: Decisions, table: classification.ByClass) -> float:
    if decisions.labels == 1:
        return table.balanced_accuracy
    each = [
        classification.by_class(
            decisions.true[decisions.label == k], decisions.predicted[decisions.label == k]
        ).balanced_accuracy
        for k in range(decisions.labels)
    ]
    finite = np.array(each)[np.isfinite(each)]
    return float(metrics.mean(finite))


def _confusion(decisions: Decisions, names: Sequence[str]) -> tuple[Integers | None, tuple[str, ...]]:
    """Of the classes that occur; the rarer ones of many together."""
    if decisions.labels > 1:
        return None, ()
    classes, counts = np.unique(np.concatenate([decisions.true, decisions.predicted]), return_counts=True)
    kept = classes
    if classes.size > SHOWN_CLASSES:
        kept = np.sort(classes[np.argsort(-counts, kind="stable")[: SHOWN_CLASSES - 1]])
    size = kept.size + (kept.size < classes.size)

    def place(of: Integers) -> Integers:
        if not kept.size:
            return of
        at = np.minimum(np.searchsorted(kept, of), kept.size - 1)
        return np.where(kept[at] == of, at, size - 1)

    counted = classification.confusion(place(decisions.true), place(decisions.predicted), size)
    others = ("others",) if size > kept.size else ()
    return counted, (*(names[c] for c in kept), *others)


def one_class(decisions: Decisions) -> bool:
    """Whether (nearly) all decisions fall on one class though the targets do not."""
    if decisions.true.size < _LEAST_DECISIONS:
        return False
    if decisions.labels > 1:
        return bool((decisions.predicted == 0).all() and (decisions.true == 1).any())
    classes, counts = np.unique(decisions.predicted, return_counts=True)
    top = classes[counts.argmax()]
    predicted, true = counts.max() / decisions.true.size, float((decisions.true == top).mean())
    return bool(predicted >= ONE_CLASS and true < predicted - 0.02)


def class_remarks(decisions: Decisions, scores: ClassScores) -> tuple[Remark, ...]:
    """One class alone, classes never predicted, confidences that do not hold."""
    collapsed = one_class(decisions)
    remarks = _collapsed(decisions, scores) if collapsed else _never_predicted(decisions, scores)
    return (*remarks, *_miscalibrated(scores))


def _collapsed(decisions: Decisions, scores: ClassScores) -> tuple[Remark, ...]:
    fix = (
        "Look for a path that carries no signal (gradient flow, activations); else weigh the classes, or see "
        "whether the inputs tell them apart at all (ablation)."
    )
    if decisions.labels > 1:
        share = percent(float((decisions.true == 1).mean()))
        text = f"No label is ever predicted, though {share} of the targets are 1: the model says no to all."
        return (Remark("critical", text, fix),)
    top = int(scores.predicted.argmax())
    constant = float(decisions.confidence.std()) < 1e-3
    also = " and its probability hardly changes from sample to sample" if constant else ""
    text = (
        f"The model predicts {printable(scores.names[top], 60)!r} for "
        f"{percent(scores.predicted[top] / scores.count)} of the {scores.count:,} decisions, though "
        f"{percent(scores.support[top] / scores.count)} of the targets are of that class{also}: collapsed to "
        "one class."
    )
    return (Remark("critical", text, fix),)


def _never_predicted(decisions: Decisions, scores: ClassScores) -> tuple[Remark, ...]:
    """Classes that occur but are never predicted; of a vocabulary most are, and that says nothing."""
    if decisions.classes > 1000:
        return ()
    missed = np.flatnonzero((scores.predicted == 0) & (scores.support >= _LEAST_SUPPORT))
    if not missed.size:
        return ()
    named = [
        f"{printable(scores.names[i], 40)!r} ({scores.support[i]:,})"
        for i in missed[np.argsort(-scores.support[missed], kind="stable")][:5]
    ]
    more = f" and {missed.size - 5:,} more" if missed.size > 5 else ""
    what = "labels" if decisions.labels > 1 else "classes"
    text = f"Never predicted, though the targets hold them: the {what} {', '.join(named)}{more}."
    fix = "Weigh the loss by class, sample rare classes more often, or move the decision threshold."
    return (Remark("warning", text, fix),)


def _miscalibrated(scores: ClassScores) -> tuple[Remark, ...]:
    if not scores.ece > max(MISCALIBRATED, scores.ece_by_chance):
        return ()
    over = scores.confidence > scores.accuracy
    side = "overconfident" if over else "underconfident"
    text = (
        f"Confidences do not hold: mean confidence {percent(scores.confidence)}, accuracy "
        f"{percent(scores.accuracy)}, expected calibration error {number(scores.ece)} (a calibrated model "
        f"stays below {number(scores.ece_by_chance)} on as many decisions): the model is {side}."
    )
    fix = "Fit a temperature on held-out data (Guo 2017)" + (
        ", or train with label smoothing." if over else "."
    )
    return (Remark("warning", text, fix),)
