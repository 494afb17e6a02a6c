"""What the examination of uncertainty yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often the model is right at each confidence (reliability diagram, 15 bins of equal width).

    Attributes:
        of: ``model``, or ``mean of the dropout passes``.
        edges: of the bins (B + 1,).
        count: decisions in each bin (B,).
        confidence: their mean confidence (B,); NaN where a bin is empty.
        accuracy: share of them that are right (B,); NaN where a bin is empty.
        low: lower end of the accuracy's 95 % interval (Wilson 1927) (B,).
        high: upper end (B,).
        ece: expected calibration error.
    """

    of: str
    edges: Floats
    count: Integers
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    ece: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many targets lie inside the central intervals (regression).

    Attributes:
        nominal: share that each interval should hold (L,).
        dropout: share held by intervals of the dropout passes alone, mean ± z·std (L,).
        with_noise: the same with the noise added that dropout knows nothing of: the mean squared residual of
            the other samples less the mean variance of the passes (L,).
    """

    nominal: Floats
    dropout: Floats
    with_noise: Floats


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Spread of the predictions under dropout (Gal & Ghahramani 2016). A rough measure.

    Attributes:
        passes: forward passes with dropout; 0 where the model has none.
        dropouts: full names of the dropout modules that were switched on.
        index: place in the data of each sample that went through the passes (N,): of large outputs some.
        shown: outputs whose values are kept, the first ones where there are many (k,); empty for classes.
        mean: mean over the passes of the kept outputs (N, k), in the outputs' unit; of classes, the mean
            probability given to the class predicted on average, (M,) decisions. Empty without dropout.
        std: standard deviation over the passes, of the same shape.
        residuals: target minus mean, beside ``mean`` (N, k); empty for classes and without targets.
        right: whether the class predicted on average is the true one, beside ``mean`` (M,); empty for
            regression and without targets.
        entropy: entropy of the mean probabilities (nats), (M,); empty for regression.
        mutual_information: entropy of the mean less the mean entropy (nats), (M,): what the passes disagree
            on; empty for regression.
        typical: median standard deviation over all outputs; NaN without dropout.
        ranks_errors: whether uncertainty is larger where errors are: Spearman of std and absolute error, or
            of classes the area under the ROC curve of entropy against wrong decisions (0.5 is chance); NaN
            where it cannot be known.
        coverage: of central intervals; None for classes or without targets.
        reliability: diagrams of the model and, with dropout, of the mean of the passes.
        remarks: what it has to say.
    """

    passes: int
    dropouts: tuple[str, ...]
    index: Integers
    shown: Integers
    mean: Floats
    std: Floats
    residuals: Floats
    right: npt.NDArray[np.bool_]
    entropy: Floats
    mutual_information: Floats
    typical: float
    ranks_errors: float
    coverage: Coverage | None
    reliability: tuple[Reliability, ...]
    remarks: tuple[Remark, ...] = ()
