"""The model against predictors that do not look at the inputs.

Skill is 1 − error / error of the baseline (Murphy 1988), each baseline in the metric that it is best in: the
mean in squared error, the median in absolute error, the majority class in the error rate, the class
frequencies (of tokens: the unigram) in log-loss. They are fitted on the training data where these are given.
Fitted on the evaluated targets they are an oracle, and are called so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from torchwatch.errors import UsageError
from torchwatch.examinations import tasks
from torchwatch.examinations._scored import Decisions, Numbers, scored, units
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.examinations.samples import take
from torchwatch.results import Remark
from torchwatch.results.baselines import Baseline, Baselines
from torchwatch.statistics.metrics import over
from torchwatch.statistics.resampling import interval, weights
from torchwatch.text import number, percent

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_LEAST_TRAINING = 2_000
"""Training samples that the baselines are fitted on, at least, where there are as many."""

_PRINCIPAL = ("mean", "prior", "unigram")


@dataclass(frozen=True)
class _Losses:
    """Losses of the model and of one baseline, one entry per finite value or decision (M)."""

    name: str
    metric: str
    model: Floats
    naive: Floats


def examine(case: Case) -> Baselines:
    """Compare the model with naive predictors."""
    known = scored(case)
    training = _training_targets(case)
    if isinstance(known, Numbers):
        sample, column = np.nonzero(known.finite)
        columns, fitted_on, losses = _naive_numbers(known, training)
    else:
        sample, column, columns = known.sample, known.label, known.labels
        fitted_on, losses = _naive_classes(case, known, training)
    if not sample.size:
        raise NotApplicable("no sample has both a finite prediction and a target: nothing can be compared")
    unit, unit_name = units(case)
    drawn = weights(unit, case.rng("baselines"))
    compared = tuple(_compared(each, sample, column, columns, drawn) for each in losses)
    remarks = _remarks(compared, oracle=training is None)
    if training is None and case.inputs.train_data is not None:
        text = "The training data hold no targets, so the baselines were fitted on the evaluated ones."
        remarks = (Remark("warning", text, "Give train_data in the form of the data."), *remarks)
    return Baselines(
        baselines=compared,
        oracle=training is None,
        fitted_on=fitted_on,
        samples=int(np.unique(sample).size),
        worse=tuple(b.name for b in compared if b.skill_high < 0),
        unit=unit_name,
        remarks=remarks,
    )


def _training_targets(case: Case) -> Tensor | None:
    """Canonical targets of the training data; None where there are none."""
    if case.inputs.train_data is None:
        return None
    count = max(case.options.samples, _LEAST_TRAINING)

    def told(done: int) -> bool:
        case.tick(done, count)
        return False

    taken = take(case.inputs.train_data, count, case.options.seed, told)
    if taken.targets is None:
        return None
    targets = tasks.canonical_targets(taken.targets, case.task)
    wanted = case.wanted_targets
    if case.task.name in ("regression", "binary", "multilabel") and targets.shape[1:] != wanted.shape[1:]:
        raise UsageError(
            f"targets of train_data have shape {tuple(taken.targets.shape[1:])} a sample, those of the data "
            f"another: give both in one form"
        )
    return targets


# ---------------------------------------------------------------------- regression


def _naive_numbers(numbers: Numbers, training: Tensor | None) -> tuple[int, int, list[_Losses]]:
    fitted = numbers.targets if training is None else training.double().numpy()
    middle = np.array([_finite(fitted[:, i]).mean() if _finite(fitted[:, i]).size else np.nan
                       for i in range(fitted.shape[1])])  # fmt: skip
    median = np.array([np.median(_finite(c)) if _finite(c).size else np.nan for c in fitted.T])
    p, y = numbers.predictions[numbers.finite], numbers.targets[numbers.finite]
    column = np.nonzero(numbers.finite)[1]
    losses = [
        _Losses("mean", "mean squared error", (p - y) ** 2, (middle[column] - y) ** 2),
        _Losses("median", "mean absolute error", np.abs(p - y), np.abs(median[column] - y)),
    ]
    return fitted.shape[1], int(np.isfinite(fitted).any(1).sum()), losses


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


# ---------------------------------------------------------------------- classes


def _naive_classes(case: Case, decisions: Decisions, training: Tensor | None) -> tuple[int, list[_Losses]]:
    """Majority and prior, per label; add-one smoothed where fitted on other data than scored on."""
    if training is None:
        true, label = decisions.true, decisions.label
        fitted_on = int(np.unique(decisions.sample).size)
    else:
        true, label = _training_classes(training, decisions)
        fitted_on = len(training)
    counts = np.zeros((decisions.labels, decisions.classes))
    np.add.at(counts, (label, true), 1)
    majority = counts.argmax(1)
    prior = counts + (training is not None)  # a class unseen in training must not cost infinitely much
    prior = over(prior, prior.sum(1, keepdims=True))
    said = prior[decisions.label, decisions.true]
    wrong = (decisions.true != majority[decisions.label]).astype(np.float64)
    return fitted_on, [
        _Losses("majority", "error rate", (~decisions.right).astype(np.float64), wrong),
        _Losses(
            "unigram" if case.task.name == "token" else "prior",
            "log-loss (nats)",
            -decisions.log_likelihood,
            -np.log(said),
        ),
    ]


def _training_classes(training: Tensor, decisions: Decisions) -> tuple[Integers, Integers]:
    """Class and label of every training target that counts."""
    values: npt.NDArray[Any] = training.reshape(len(training), -1).double().numpy()
    fine = np.isfinite(values) & (values != tasks.IGNORED) & (values >= 0)
    if decisions.classes == 2:
        values = np.where(fine, values > 0.5, values)
    fine &= values < decisions.classes
    label = np.nonzero(fine)[1] if decisions.labels > 1 else np.zeros(int(fine.sum()), np.int64)
    return values[fine].astype(np.int64), label


# ---------------------------------------------------------------------- comparing


def _compared(losses: _Losses, sample: Integers, column: Integers, columns: int, drawn: Floats) -> Baseline:
    """Skill with the bootstrap interval of a ratio of sums."""
    count = drawn.shape[1]
    model = np.bincount(sample, losses.model, minlength=count)
    naive = np.bincount(sample, losses.naive, minlength=count)
    low, high = interval(1 - over(drawn @ model, drawn @ naive))
    by_output = 1 - over(
        np.bincount(column, losses.model, minlength=columns),
        np.bincount(column, losses.naive, minlength=columns),
    )
    return Baseline(
        name=losses.name,
        metric=losses.metric,
        error=float(losses.naive.mean()),
        model_error=float(losses.model.mean()),
        skill=float(1 - over(model.sum(), naive.sum())),
        skill_low=float(low),
        skill_high=float(high),
        skill_by_output=by_output,
    )


def _remarks(compared: tuple[Baseline, ...], *, oracle: bool) -> tuple[Remark, ...]:
    remarks = []
    principal = next(b for b in compared if b.name in _PRINCIPAL)
    for each in compared:
        if each.skill_high < 0:
            remarks.append(_worse(each, oracle=oracle))
        elif each.skill_low <= 0 and (each is principal or principal.skill_high < 0):
            remarks.append(_no_better(each))
        elif each.skill_low <= 0 and principal.skill_low > 0:
            remarks.append(_only_principal(each, principal))
    remarks += [r for b in compared for r in _worse_outputs(b) if b is principal]
    if oracle:
        text = (
            "These baselines are an oracle: without training data they were fitted on the very targets that "
            "they are scored on, and so are a little better than any honest one."
        )
        remarks.append(Remark("info", text, "Pass `train_data` for honest baselines."))
    return tuple(remarks)


def _skill(b: Baseline) -> str:
    return f"skill {number(b.skill)} (95 % {number(b.skill_low)} … {number(b.skill_high)})"


def _against(b: Baseline) -> str:
    return f"{b.metric} {number(b.model_error)} against {number(b.error)}"


def _worse(b: Baseline, *, oracle: bool) -> Remark:
    fitted = "the evaluated targets" if oracle else "the training data"
    text = f"Worse than naive: the {b.name} of {fitted} beats the model, {_against(b)}, {_skill(b)}."
    fix = (
        "Check that weights are loaded, that the model is in evaluation mode, and that inputs and targets "
        "are normalised as in training; on held-out data it may be overfitting."
    )
    return Remark("warning", text, fix)


def _no_better(b: Baseline) -> Remark:
    text = f"No better than naive as far as these samples tell: {b.name}, {_against(b)}, {_skill(b)}."
    return Remark("warning", text, "See whether predictions collapsed, or whether the signal is weak.")


def _only_principal(b: Baseline, principal: Baseline) -> Remark:
    text = (
        f"Against the {b.name} the model gains nothing that is sure ({_against(b)}, {_skill(b)}), though it "
        f"does against the {principal.name} ({_skill(principal)}): it knows something, but seldom enough to "
        "decide otherwise."
    )
    return Remark("info", text)


def _worse_outputs(b: Baseline) -> tuple[Remark, ...]:
    """Of several outputs those below the baseline, where the model as a whole is not."""
    below = np.flatnonzero(b.skill_by_output < 0)
    if b.skill_by_output.size < 2 or not below.size or b.skill_high < 0:
        return ()
    worst = int(below[np.argmin(b.skill_by_output[below])])
    text = (
        f"{below.size:,} of {b.skill_by_output.size:,} outputs "
        f"({percent(below.size / b.skill_by_output.size)}) are worse than their {b.name}, output {worst} the "
        f"most (skill {number(b.skill_by_output[worst])})."
    )
    return (Remark("warning", text, "Scale the outputs alike in the loss, or weigh these more."),)


EXAMINATION = Examination(
    title="Naive baselines",
    examine=examine,
    tells="whether the model beats predictors that never look at the inputs",
    needs_targets=True,
)
