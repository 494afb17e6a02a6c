"""What the comparison of groups yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """How the variance of a quantity splits over groups (one-way random effects, by mean squares).

    Attributes:
        quantity: ``targets``, ``predictions``, ``residuals`` or ``errors``.
        between: variance of the groups' means around the grand mean, without what chance adds to it.
        within: variance inside the groups.
        share: ``between / (between + within)``, the intraclass correlation (Shrout & Fleiss 1979, case 1), at
            least 0; NaN where nothing varies.
    """

    quantity: str
    between: float
    within: float
    share: float


@dataclass(frozen=True, slots=True)
class Groups:
    """The metric of each group.

    Attributes:
        by: ``group``, or ``class`` where no groups were given and the true class takes their place.
        metric: ``RMSE`` or ``accuracy``.
        higher_is_better: of the metric.
        names: of the groups (G), the worst first.
        count: samples in each (G,).
        value: the metric of each (G,).
        low: lower end of its 95 % interval (G,): Wilson's for the accuracy of single decisions, else by
            bootstrap; NaN below 2 samples.
        high: upper end (G,).
        few: whether a group has less than 5 samples (G,): it counts neither for the spread nor as the worst.
        overall: the metric over all samples.
        spread: standard deviation of the metric over the groups with enough samples; NaN below 2 groups.
        spread_p: how often groups drawn by chance spread as much (permutation); NaN below 2 groups.
        worst: name of the worst group with enough samples; None where there is none.
        worst_p: how often the worst of groups drawn by chance is as bad (permutation); NaN below 2 groups.
        splits: between and within variance of targets, predictions, residuals and errors; of classes, of
            errors alone. Of several outputs the mean, each in units of its targets' variance.
        pearson_within: correlation of predictions and targets with each group's means taken off; of several
            outputs the median; NaN for classes.
        pearson_between: correlation of the groups' mean predictions and mean targets; NaN for classes or
            below 3 groups.
        within_low: lower end of the 95 % interval of ``pearson_within`` (Fisher's z).
        within_high: upper end.
        remarks: what it has to say.
    """

    by: str
    metric: str
    higher_is_better: bool
    names: tuple[str, ...]
    count: Integers
    value: Floats
    low: Floats
    high: Floats
    few: npt.NDArray[np.bool_]
    overall: float
    spread: float
    spread_p: float
    worst: str | None
    worst_p: float
    splits: tuple[Split, ...]
    pearson_within: float
    pearson_between: float
    within_low: float
    within_high: float
    remarks: tuple[Remark, ...] = ()

    def split(self, quantity: str) -> Split | None:
        """The split of one quantity; None where it was not measured."""
        return next((s for s in self.splits if s.quantity == quantity), None)
