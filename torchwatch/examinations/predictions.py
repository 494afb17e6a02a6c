"""Predictions beside targets: how good they are, and whether they have collapsed.

A model has collapsed when its predictions are (nearly) constant, or when the calibration slope, the slope of
the regression of targets on predictions b = r·σy/σp, is far above 1. A small spread alone is no collapse: the
predictor of least squared error of a weak signal spreads only r times as wide as the targets, and its slope
is 1. Both readings are named, and the numbers say which they favour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._predictions_classes import class_remarks, class_scores, one_class
from torchwatch.examinations._predictions_numbers import number_remarks, number_scores
from torchwatch.examinations._scored import Decisions, Numbers, output_names, scored, units
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination
from torchwatch.results import Remark
from torchwatch.results.predictions import NumberScores, Predictions
from torchwatch.statistics.resampling import weights

_KEPT_VALUES = 50_000
"""Values that a result keeps of predictions and of targets."""


def examine(case: Case) -> Predictions:
    """Score predictions against targets."""
    known = scored(case)
    if isinstance(known, Numbers):
        return _of_numbers(case, known)
    return _of_classes(case, known)


def _of_numbers(case: Case, numbers: Numbers) -> Predictions:
    drawn = weights(units(case)[0], case.rng("predictions"))
    scores = number_scores(numbers, output_names(case, numbers.predictions.shape[1]), drawn)
    shown = _shown(scores, len(numbers.predictions))
    down = sum(r in ("collapsed", "over-shrunk") for r in scores.readings)
    gone = _left_out("predicted values", numbers.predictions.size, numbers)
    return Predictions(
        task=case.task.name,
        index=case.samples.index,
        shown=shown,
        predictions=numbers.predictions[:, shown],
        targets=numbers.targets[:, shown],
        collapsed=down > len(scores.names) / 2,
        left_out=int((~numbers.finite).sum()),
        nan_predictions=numbers.nan_predictions,
        nan_targets=numbers.nan_targets,
        numbers=scores,
        remarks=(*gone, *number_remarks(scores)),
    )


def _shown(scores: NumberScores, samples: int) -> npt.NDArray[np.int64]:
    """Outputs whose values are kept: all, or the worst by NRMSE where they are too many."""
    count = len(scores.names)
    room = max(1, _KEPT_VALUES // max(1, samples))
    if count <= room:
        return np.arange(count)
    worst_first = np.argsort(-np.where(np.isfinite(scores.nrmse), scores.nrmse, -np.inf), kind="stable")
    return worst_first[:room].astype(np.int64)


def _of_classes(case: Case, decisions: Decisions) -> Predictions:
    scores = class_scores(decisions, case.class_names, case.rng("predictions"))
    asked = decisions.true.size + decisions.nan_predictions
    return Predictions(
        task=case.task.name,
        index=case.samples.index,
        shown=np.empty(0, np.int64),
        predictions=decisions.predicted[:_KEPT_VALUES],
        targets=decisions.true[:_KEPT_VALUES],
        collapsed=one_class(decisions),
        left_out=decisions.nan_predictions + decisions.nan_targets + decisions.ignored,
        nan_predictions=decisions.nan_predictions,
        nan_targets=decisions.nan_targets,
        classes=scores,
        remarks=(*_left_out("predictions", asked, decisions), *class_remarks(decisions, scores)),
    )


def _left_out(what: str, asked: int, known: Numbers | Decisions) -> tuple[Remark, ...]:
    """NaN is counted, named and left out, and that is said."""
    remarks = []
    if known.nan_predictions:
        text = (
            f"{known.nan_predictions:,} of {asked:,} {what} are NaN or infinite (samples {_few(known.bad)} "
            "of the data); they are left out of every score."
        )
        fix = (
            "Check these samples for NaN and extreme values (data quality), then the model for divisions, "
            "logarithms and square roots without a floor."
        )
        remarks.append(Remark("critical", text, fix))
    if known.nan_targets:
        text = f"{known.nan_targets:,} targets are NaN or infinite and are left out of every score."
        remarks.append(Remark("warning", text, "Drop samples without a target, or mask them in the loss."))
    return tuple(remarks)


def _few(values: Sequence[Any] | npt.NDArray[Any], limit: int = 5) -> str:
    shown = ", ".join(str(v) for v in values[:limit])
    return f"{shown}, …" if len(values) > limit else shown


EXAMINATION = Examination(
    title="Predictions",
    examine=examine,
    tells="how far predictions are from targets, and whether they collapsed or shrank honestly",
    needs_targets=True,
)
