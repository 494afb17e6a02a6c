"""What all statistics share: finite values and their positions as arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def finite(values: npt.ArrayLike) -> Values:
    """The finite values, flat."""
    x = np.asarray(values, np.float64).ravel()
    return x[np.isfinite(x)]


def points(positions: npt.ArrayLike | None, values: npt.ArrayLike) -> tuple[Values, Values]:
    """Positions and values where both are finite."""
    y = np.asarray(values, np.float64).ravel()
    x = (
        np.arange(y.size, dtype=np.float64)
        if positions is None
        else np.asarray(positions, np.float64).ravel()
    )
    fine = np.isfinite(y) & np.isfinite(x)
    return x[fine], y[fine]
