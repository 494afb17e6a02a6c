"""What the examination of predictions yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Reading = Literal[
    "collapsed",
    "over-shrunk",
    "honest shrinkage",
    "shrunk",
    "over-dispersed",
    "unrelated",
    "against",
    "sound",
    "unknown",
]
"""What the numbers of one output favour.

``collapsed``: predictions (nearly) constant. ``over-shrunk``: calibration slope ≫ 1, the predictions know
more than they say. ``honest shrinkage``: spread below half of the targets', slope ≈ 1, as the best predictor
of a weak signal has it. ``shrunk``: small spread, and the numbers favour neither reading. ``over-dispersed``:
slope ≪ 1, the predictions say more than they know. ``unrelated``: no correlation that chance would not give.
``against``: they run against the targets. ``sound``: none of these. ``unknown``: constant targets, or fewer
than 10 samples.
"""


@dataclass(frozen=True, slots=True)
class NumberScores:
    """Scores of a regression, one entry per output; all NaN where an output has no finite pair.

    Attributes:
        names: of the outputs (K).
        count: samples with a finite prediction and a finite target (K,).
        prediction_mean: (K,), unit of the targets.
        prediction_std: population standard deviation (K,), unit of the targets.
        target_mean: (K,), unit of the targets.
        target_std: (K,), unit of the targets.
        std_ratio: ``prediction_std / target_std`` (K,); NaN for constant targets.
        rmse: root mean squared error (K,), unit of the targets.
        nrmse: ``rmse / target_std`` (K,): 1 is what predicting the mean gets; NaN for constant targets.
        mae: mean absolute error (K,), unit of the targets.
        r2: coefficient of determination (K,); NaN for constant targets.
        pearson: correlation r (K,); NaN where either side is constant.
        pearson_low: lower end of its bootstrap 95 % interval (K,).
        pearson_high: upper end (K,).
        slope: calibration slope of targets on predictions, r·σy/σp (K,): 1 is calibrated.
        slope_low: lower end of its bootstrap 95 % interval (K,).
        slope_high: upper end (K,).
        readings: what these numbers favour, one per output.
    """

    names: tuple[str, ...]
    count: Integers
    prediction_mean: Floats
    prediction_std: Floats
    target_mean: Floats
    target_std: Floats
    std_ratio: Floats
    rmse: Floats
    nrmse: Floats
    mae: Floats
    r2: Floats
    pearson: Floats
    pearson_low: Floats
    pearson_high: Floats
    slope: Floats
    slope_low: Floats
    slope_high: Floats
    readings: tuple[Reading, ...]

    def overall(self, field: str) -> float:
        """The median of a field over the outputs where it is finite; NaN where it is nowhere."""
        values = np.asarray(getattr(self, field), dtype=np.float64)
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if finite.size else float("nan")


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Scores of a classification, over all places (tokens, labels) that count.

    Attributes:
        names: of the classes below, those that occur in targets or predictions (C); of a multilabel task, of
            the labels.
        classes: their numbers (C,).
        count: how many decisions were scored.
        accuracy: share of right decisions.
        balanced_accuracy: mean recall of the classes that occur in the targets; of multilabel, mean over the
            labels of each label's own.
        f1_macro: unweighted mean of the classes' F1.
        nll: mean negative log-likelihood (nats).
        ece: expected calibration error with 15 bins (Guo 2017).
        ece_by_chance: 95th percentile of the ECE that perfectly calibrated confidences would get.
        confidence: mean probability given to the predicted class.
        support: how often each class occurs in the targets (C,).
        predicted: how often each was predicted (C,).
        precision: (C,); NaN where a class was never predicted.
        recall: (C,); NaN where a class does not occur.
        f1: (C,).
        confusion: counts, rows true and columns predicted, of ``confusion_names``; None for multilabel.
        confusion_names: at most 40 of the classes, the most frequent, and "others" where there are more.
    """

    names: tuple[str, ...]
    classes: Integers
    count: int
    accuracy: float
    balanced_accuracy: float
    f1_macro: float
    nll: float
    ece: float
    ece_by_chance: float
    confidence: float
    support: Integers
    predicted: Integers
    precision: Floats
    recall: Floats
    f1: Floats
    confusion: Integers | None
    confusion_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions beside targets.

    Attributes:
        task: kind of task.
        index: place of each sample in the data (N,).
        shown: outputs whose values are kept, the worst first (k,); all where they are few.
        predictions: of the kept outputs (N, k) in the targets' unit; of classes, the predicted class of each
            decision (M,).
        targets: beside them, (N, k) or (M,).
        collapsed: predictions are (nearly) constant, a single class is predicted, or the calibration slope is
            far above 1; of several outputs, of most.
        left_out: values or decisions without a finite prediction or target.
        nan_predictions: how many of the predicted values are NaN or infinite.
        nan_targets: how many of the target values are NaN or infinite.
        numbers: scores of a regression.
        classes: scores of a classification.
        remarks: what it has to say.
    """

    task: str
    index: Integers
    shown: Integers
    predictions: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    collapsed: bool
    left_out: int
    nan_predictions: int
    nan_targets: int
    numbers: NumberScores | None = None
    classes: ClassScores | None = None
    remarks: tuple[Remark, ...] = ()

    @property
    def residuals(self) -> Floats | None:
        """Target minus prediction (N, k), in the targets' unit; None for classes."""
        if self.numbers is None:
            return None
        residuals: Floats = self.targets - self.predictions
        return residuals
