"""Columns: float32 arrays in which "not measured" is a NaN of its own; how they look in a line."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

if TYPE_CHECKING:
    from torchwatch.codec.nonfinite import Nonfinite

Column = npt.NDArray[np.float32]

_MISSING_BITS = 0x7FC007A2

MISSING: np.float32 = np.uint32(_MISSING_BITS).view(np.float32)
"""The entry of a column that was not measured; compare with :func:`is_missing`, never with ``==``."""

_NARROWEST = 4
_WIDEST = 1 << 17  # entries of a compact column, lest a short line ask for much memory
_WIDEST_SPARSE = 4096
_USUAL = (_MISSING_BITS, 0)
_LONG = 9  # bytes an entry from which on it is worth the time to write small numbers with an exponent


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
    """A column as JSON: ``{"n": 150, "all": 0, "but": {"7": 0.5}}`` where nearly all are one, else a list.

    Numbers are written as short as they can be: whole ones without ``.0``, many small ones as ``1234e-7``.
    """
    width = len(column)
    if _NARROWEST <= width <= _WIDEST:
        bits = np.ascontiguousarray(column).view(np.uint32)
        common = bits[-1] if bits[-1] in _USUAL else bits[0]
        others = np.flatnonzero(bits != common) if common in _USUAL or bits[0] == bits[-1] else bits
        if not len(others) or (4 * len(others) <= width <= _WIDEST_SPARSE):
            return _sparse(column, common.view(np.float32), others.tolist(), found, path)
    return _text(found.column(column, path))


def _sparse(column: Column, common: np.float32, others: list[int], found: Nonfinite, path: str) -> Any:
    body: dict[str, Any] = {"n": len(column), "all": _entry(common, found, f"{path}.all")}
    if others:
        body["but"] = {str(i): _entry(column[i], found, f"{path}.but.{i}") for i in others}
    return body


def _entry(value: np.float32, found: Nonfinite, path: str) -> int | float | None:
    if value.view(np.uint32) == _MISSING_BITS:
        return None
    number = float(str(value))  # the shortest decimal of a float32
    if number.is_integer() and abs(number) < 2**24 and (number or math.copysign(1, number) > 0):
        return int(number)
    return found.number(number, path)


def _text(column: Column) -> orjson.Fragment:
    """The column as orjson writes it, but shorter; null for what is no number."""
    text = orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(text) > _LONG * len(column):
        text = b"[%b]" % b",".join(
            b"%be-%d" % (entry[4:].lstrip(b"0"), len(entry) - 2) if entry[:4] == b"0.00" else entry
            for entry in text[1:-1].split(b",")
        )
    if b"-0.0," not in text and b"-0.0]" not in text:
        text = text.replace(b".0,", b",").replace(b".0]", b"]")
    return orjson.Fragment(text)


def column_from_json(values: Any) -> Column:
    """A float32 column; null is :data:`MISSING` (non-finite numbers were restored before).

    Raises:
        ValueError: it is neither a list of numbers and nulls nor a compact form.
    """
    if type(values) is dict:
        return _unfolded(values)
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


def _unfolded(body: dict[str, Any]) -> Column:
    """The column of a compact form. Without exceptions it is one number in memory, however wide."""
    width, but = body.get("n"), body.get("but")
    if type(width) is not int or not 0 <= width <= _WIDEST or "all" not in body:
        raise ValueError("not a column")
    entry = column_from_json([body["all"]])
    column: Column = np.broadcast_to(entry, width)
    if but is None:
        return column
    if type(but) is not dict or width > _WIDEST_SPARSE:
        raise ValueError("not a column")
    column = column.copy()
    for place, value in zip(but, column_from_json(list(but.values())), strict=True):
        if not (place.isascii() and place.isdecimal() and len(place) < 10 and int(place) < width):
            raise ValueError(f"no entry at {place!r:.20}")
        column[int(place)] = value
    return column
