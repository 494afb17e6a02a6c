"""Values of parameters on their way into columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from torchwatch.probe import Slot, Values
from torchwatch.records import Column

_LARGEST = float(np.finfo(np.float32).max)

Numbers = npt.NDArray[np.floating] | Slot
"""Numbers that are there already, or the slot to read them from when they are."""


def read(numbers: Numbers, values: list[Values]) -> Values:
    """The numbers, as float64."""
    return values[numbers] if isinstance(numbers, int) else numbers.astype(np.float64)


def fill(column: Column, indices: Sequence[int] | npt.NDArray[np.int64], values: Values) -> None:
    """Write finite values into a float32 column without letting them overflow to infinity."""
    with np.errstate(invalid="ignore", over="ignore"):
        clipped = np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), values)
        column[np.asarray(indices)] = clipped.astype(np.float32)
