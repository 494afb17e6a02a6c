"""Columns: float32 arrays in which "not measured" is a NaN of its own; how they look in a line."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torchwatch.codec.nonfinite import Nonfinite

Column = npt.NDArray[np.float32]

_MISSING_BITS = 0x7FC007A2

MISSING: np.float32 = np.uint32(_MISSING_BITS).view(np.float32)
"""The entry of a column that was not measured; compare with :func:`is_missing`, never with ``==``."""

_NARROWEST = 4
_WIDEST = 1 << 17  # entries of a column that is written once, lest a short line ask for much memory


def is_missing(column: Column) -> npt.NDArray[np.bool_]:
    """Entries that were not measured. Shape of the input, bool."""
    bits: npt.NDArray[np.uint32] = np.ascontiguousarray(column, np.float32).view(np.uint32)
    missing: npt.NDArray[np.bool_] = bits == _MISSING_BITS
    return missing


def is_bad(column: Column) -> npt.NDArray[np.bool_]:
    """Entries that were measured and are NaN or infinite. Shape of the input, bool."""
    return ~np.isfinite(column) & ~is_missing(column)


def missing_column(width: int) -> Column:
    """A column of ``width`` entries, none of them measured."""
    return np.full(width, _MISSING_BITS, np.uint32).view(np.float32)


def column_to_json(column: Column, found: Nonfinite, path: str) -> Any:
    """A column: once where every entry says the same, else the array itself."""
    width = len(column)
    if not _NARROWEST <= width <= _WIDEST or _differ(column.item(0), column.item(-1)):
        return found.column(column, path)
    bits = np.ascontiguousarray(column).view(np.uint32)
    if (bits != bits[0]).any():
        return found.column(column, path)
    if bits[0] == _MISSING_BITS:
        return {"n": width, "all": None}
    value = column.item(0)
    if value.is_integer() and abs(value) < 2**24 and (value or math.copysign(1, value) > 0):
        return {"n": width, "all": int(value)}
    return {"n": width, "all": found.number(float(str(column[0])), f"{path}.all")}


def _differ(first: float, last: float) -> bool:
    """Whether two entries certainly are not the same (two NaN may be)."""
    return first != last and not (math.isnan(first) and math.isnan(last))


def column_from_json(values: Any) -> Column:
    """A float32 column; null is :data:`MISSING` (non-finite numbers were restored before).

    Raises:
        ValueError: it is neither a list of numbers and nulls nor the compact form of a constant column.
    """
    if type(values) is dict:
        return _constant(values)
    if type(values) is not list:
        raise ValueError("not a column")
    try:
        return np.frombuffer(array("f", values), np.float32)
    except TypeError:  # there are nulls in it, or worse
        absent = [i for i, v in enumerate(values) if v is None]
    try:
        column = np.frombuffer(array("f", [0.0 if v is None else v for v in values]), np.float32)
    except TypeError as error:
        raise ValueError("not a column of numbers") from error
    column.view(np.uint32)[absent] = _MISSING_BITS
    return column


def _constant(body: dict[str, Any]) -> Column:
    """The column of a compact form: one number in memory, however wide it says it is."""
    width = body.get("n")
    if type(width) is not int or not 0 <= width <= _WIDEST or "all" not in body:
        raise ValueError("not a constant column")
    entry = column_from_json([body["all"]])
    return np.broadcast_to(entry, width)
