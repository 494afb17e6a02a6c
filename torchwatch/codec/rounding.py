"""Numbers with fewer digits: shorter in the file, the same for checks and file because done before both."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from torchwatch.codec.columns import Column

COLUMN_DIGITS = 4
"""Significant decimal digits of the entries of a column."""

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_EXACT = (
    22  # powers of ten up to here are doubles, so that one rounding gives the double nearest to a decimal
)
_MOST = 60
_SCALES = np.array([10.0**i for i in range(_MOST + 1)])
_UP = np.concatenate([np.ones(_MOST), _SCALES])
_DOWN = np.concatenate([_SCALES[:0:-1], np.ones(_MOST + 1)])
_WHOLE = 2.0**53


def significant(values: Values, digits: int | Counts) -> Values:
    """The values with so many significant decimal digits; zeros, NaN and infinities stay as they are.

    Each result is the double that its decimal form means, so that rounding again changes nothing.

    Args:
        values: one dimension.
        digits: 1 to 15, one for all or one for each.
    """
    result, easy = _rounded(values, digits, _EXACT)
    if not easy.all():
        for place in np.flatnonzero(~easy & np.isfinite(values) & (values != 0)):
            few = digits if isinstance(digits, int) else int(digits[place])
            result[place] = tidied(float(values[place]), few)
    return result


def tidied(value: float, digits: int) -> float:
    """One value with so many significant decimal digits; as it is where that would overflow."""
    if value == 0 or not math.isfinite(value):
        return value
    short = float(f"{value:.{digits - 1}e}")
    return short if math.isfinite(short) else value


def decimals(values: Values, places: int | Counts) -> Values:
    """The values with so many decimal places (times: 6 for microseconds); beyond 2⁵³ of them unchanged.

    ``places``: 0 to 22, one for all or one for each.

    Each result is the double that its decimal form means.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        power = _SCALES[places]
        scaled = np.rint(values * power)
        result: Values = scaled / power
        fine = np.abs(scaled) < _WHOLE
    return result if fine.all() else np.where(fine, result, values)


def rounded(column: Column, digits: int = COLUMN_DIGITS) -> Column:
    """A column with so many significant decimal digits (default 4, a relative error of at most 0.05 %).

    Exact zeros stay exact zeros; entries that are NaN, infinite or MISSING keep their bits. Rounding again
    changes nothing.
    """
    result, easy = _rounded(column.astype(np.float64), digits, _MOST)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = result.astype(np.float32)
    return np.where(easy & np.isfinite(narrow), narrow, column)


def rounded_together(columns: Sequence[Column]) -> list[Column]:
    """Each of the columns as :func:`rounded` gives it, in one go: numpy's time is that of its calls."""
    if not columns:
        return []
    whole, found, start = rounded(np.concatenate(columns)), [], 0
    for column in columns:
        found.append(whole[start : start + len(column)])
        start += len(column)
    return found


def _rounded(values: Values, digits: int | Counts, most: int) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Rounded values, and where that went well: elsewhere the value itself stands."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = (digits - 1) - np.floor(np.log10(np.abs(values)))
        easy = np.abs(places) <= most  # not for 0, NaN and infinity
        if easy.all():
            at = places.astype(np.intp) + _MOST
        else:
            at = np.where(easy, places, 0).astype(np.intp) + _MOST
        up, down = _UP.take(at), _DOWN.take(at)
        result = np.rint(values * up / down) / up * down
    return (result if easy.all() else np.where(easy, result, values)), easy
