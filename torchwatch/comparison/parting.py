"""Where the curves of two runs part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.statistics import MAD_TO_SIGMA, rolling_median

if TYPE_CHECKING:
    import numpy.typing as npt

    from torchwatch.run import Series

    Values = npt.NDArray[np.float64]

_FEWEST = 20
_WINDOW_SHARE, _SHORTEST, _LONGEST = 50, 5, 101
_SIGMAS = 4.0
_LEVEL_SHARE = 0.01
_MEDIAN_ERROR = 1.2533


@dataclass(frozen=True, slots=True)
class Parting:
    """How two curves go together, on the steps that both have.

    Attributes:
        common: how many steps both have.
        identical_until: last step up to which both are bit for bit the same; None if not even the first is.
        parts_at: first step from which their moving medians stay apart by more than noise (four σ of their
            difference and 1 % of the level, for at least two windows); None: they never do.
        gap: the second curve's moving median less the first's, at the last common step.
        window: steps of the moving median.
    """

    common: int
    identical_until: int | None = None
    parts_at: int | None = None
    gap: float | None = None
    window: int = 0


def parting(one: Series, other: Series) -> Parting:
    """Compare two scalars step by step; steps that one of them lacks are left out."""
    steps, mine, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    a, b = one.values[mine], other.values[theirs]
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    first = len(steps) if same.all() else int(np.argmin(same))
    until = int(steps[first - 1]) if first else None
    fine = np.isfinite(a) & np.isfinite(b)
    if fine.sum() < _FEWEST:
        return Parting(len(steps), until)
    at, a, b = steps[fine], a[fine], b[fine]
    window = int(min(max(len(at) // _WINDOW_SHARE, _SHORTEST), _LONGEST))
    low, high = rolling_median(a, window), rolling_median(b, window)
    apart = np.abs(high - low) > _noise(a, low, b, high, window)
    began = _lasting(apart, 2 * window)
    return Parting(
        common=len(steps),
        identical_until=until,
        parts_at=None if began is None else int(at[began]),
        gap=float(high[-1] - low[-1]),
        window=window,
    )


def _noise(a: Values, low: Values, b: Values, high: Values, window: int) -> Values:
    """What two medians of a window may differ by, at every step; on equal batches noise is shared."""
    spread = _scatter((b - high) - (a - low), window)
    level = np.maximum(np.abs(low), np.abs(high))
    error: Values = _SIGMAS * _MEDIAN_ERROR * spread / window**0.5
    return np.maximum(error, _LEVEL_SHARE * level)


def _scatter(residuals: Values, window: int) -> Values:
    """σ of the residuals around a step: their moving median magnitude over five windows."""
    return MAD_TO_SIGMA * rolling_median(np.abs(residuals), min(5 * window, len(residuals)))


def _lasting(apart: np.ndarray, least: int) -> int | None:
    """Index where the last stretch of True that reaches to the end begins, if it is long enough."""
    if not apart[-1]:
        return None
    together = np.flatnonzero(~apart)
    began = int(together[-1]) + 1 if len(together) else 0
    return began if len(apart) - began >= min(least, len(apart)) else None
