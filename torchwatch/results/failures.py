"""What the examination of failures yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Failure:
    """One of the worst samples.

    Attributes:
        index: its place in the data.
        error: its squared error, or its negative log-likelihood (nats).
        prediction: values of its outputs, at most 8; or names of its predicted classes.
        target: beside it.
        confidence: probability of the predicted class (mean over its places); NaN for regression.
        group: its group; None where there are none.
        metadata: its metadata, by column.
    """

    index: int
    error: float
    prediction: tuple[Any, ...]
    target: tuple[Any, ...]
    confidence: float
    group: Any
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Slices:
    """The error by one column, which may be a metadata column or the prediction itself.

    Attributes:
        column: name of the column.
        kind: ``metadata``, ``group``, ``predicted value``, ``predicted class`` or ``confidence``.
        names: of the slices (S): a value of the column, or a range of values.
        count: samples in each (S,).
        error: mean error of each (S,): squared error or nats.
        error_low: lower end of the 95 % interval of that mean (S,); NaN below 5 samples.
        error_high: upper end (S,).
        bias: mean of target minus prediction (S,), unit of the targets; NaN for classes.
        p: of the slice having a higher error than the others, by permuting errors between all slices of the
            column, corrected for the number of slices (max-T, Westfall & Young 1993) (S,).
    """

    column: str
    kind: str
    names: tuple[str, ...]
    count: Integers
    error: Floats
    error_low: Floats
    error_high: Floats
    bias: Floats
    p: Floats


@dataclass(frozen=True, slots=True)
class Failures:
    """Where the model fails.

    Attributes:
        worst: the 50 samples with the largest errors, the worst first.
        mean_error: over all samples: squared error or nats.
        median_error: over all samples.
        share_of_worst: share of the summed error that the worst 5 % of the samples make.
        samples: how many samples have an error.
        error_name: ``squared error`` or ``negative log-likelihood (nats)``.
        slices: the error by each column.
        not_sliced: columns that were not sliced, each with the reason.
        remarks: what it has to say.
    """

    worst: tuple[Failure, ...]
    mean_error: float
    median_error: float
    share_of_worst: float
    samples: int
    error_name: str
    slices: tuple[Slices, ...]
    not_sliced: dict[str, str]
    remarks: tuple[Remark, ...] = ()
