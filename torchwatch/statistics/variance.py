"""How variance splits between and within groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def components(values: Values, labels: Integers) -> tuple[Values, Values]:
    """Variance components of the one-way random-effects model, by mean squares, groups of any size.

    Between = (MSB − MSW) / n₀, at least 0, with n₀ = (N − Σn² / N) / (G − 1): without the part of the group
    means' scatter that the scatter inside them makes. Source: Searle, Casella & McCulloch, "Variance
    Components", 1992, section 3.6.

    Args:
        values: finite, (N, K).
        labels: group of each, numbers from 0 (N,).

    Returns:
        Between and within (K,) each; NaN below 2 groups, or where no group has 2 members.

    Raises:
        ValueError: the shapes do not fit.
    """
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f"values {values.shape} must be (N, K) and labels {labels.shape} (N,)")
    present, codes = np.unique(labels, return_inverse=True)
    groups, total = present.size, len(values)
    nothing = np.full(values.shape[1], np.nan)
    if groups < 2 or total <= groups:
        return nothing, nothing
    size = np.bincount(codes).astype(np.float64)
    centred = values - values.mean(0)
    summed = np.zeros((groups, values.shape[1]))
    np.add.at(summed, codes, centred)
    means = summed / size[:, None]
    within = ((centred - means[codes]) ** 2).sum(0) / (total - groups)
    mean_square = (size[:, None] * means**2).sum(0) / (groups - 1)
    typical = (total - (size**2).sum() / total) / (groups - 1)
    return np.maximum(mean_square - within, 0) / typical, within
