"""Robust statistics that the checks share, each with its source. numpy only.

Non-finite values are left out everywhere; where too few are left, the answer is NaN, never a warning. Only
the functions of :mod:`torchwatch.statistics.noise`, which are called most, want finite values.
"""

from torchwatch.statistics.changes import Change, pettitt
from torchwatch.statistics.joint import Outlier, mahalanobis
from torchwatch.statistics.noise import (
    middle,
    noise,
    noise_at,
    noise_beside,
    scatter,
    slope_bounds,
    step_noise,
    wiggle,
)
from torchwatch.statistics.robust import (
    MAD_TO_SIGMA,
    LogScale,
    log_scale,
    mad_sigma,
    median,
    rolling_median,
)
from torchwatch.statistics.tails import t_tail
from torchwatch.statistics.trends import (
    Slope,
    Trend,
    generalisation_loss,
    lag_one,
    mann_kendall,
    robust_sigma,
    theil_sen,
)

__all__ = [
    "MAD_TO_SIGMA",
    "Change",
    "LogScale",
    "Outlier",
    "Slope",
    "Trend",
    "generalisation_loss",
    "lag_one",
    "log_scale",
    "mad_sigma",
    "mahalanobis",
    "mann_kendall",
    "median",
    "middle",
    "noise",
    "noise_at",
    "noise_beside",
    "pettitt",
    "robust_sigma",
    "rolling_median",
    "scatter",
    "slope_bounds",
    "step_noise",
    "t_tail",
    "theil_sen",
    "wiggle",
]
