"""A field of several steps in one line: its constants once, what few steps measured by their places.

In a line a field is one of three things: an entry of the line's ``same``, when it is the same at every step;
a map from place (as text) to value, when most steps did not measure it; a list with an entry per step else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from torchwatch.codec.nonfinite import Nonfinite
from torchwatch.codec.rounding import Values
from torchwatch.codec.writing import to_json

_ONCE = frozenset({str, int, bool, float, list})


def once(values: Any) -> Any:
    """The value that all entries of a list or array share, None where they do not (or are not measured)."""
    if len(values) < 2:
        return None
    if isinstance(values, np.ndarray):
        bits = values.view(np.int64)
        return values.item(0) if bits[0] == bits[-1] and (bits == bits[0]).all() else None
    first = values[0]
    if values[-1] != first or type(first) not in _ONCE or values.count(first) != len(values):
        return None
    if set(map(type, values)) != {type(first)} or (first == 0 and type(first) is float):
        return None  # 1 equals True, and 0.0 equals -0.0
    return first


def series_to_json(values: Any, found: Nonfinite, path: str) -> Any:
    """A list, or an array of numbers, with an entry per step: dense, or by place where most are None."""
    if isinstance(values, np.ndarray):
        return found.series(values, path)
    if type(values) is not list:
        return to_json(values, found, path)
    measured = [(i, v) for i, v in enumerate(values) if v is not None] if None in values else None
    if measured is None or 2 * len(measured) >= len(values):
        return to_json(values, found, path)
    return {str(i): to_json(v, found, f"{path}.{i}") for i, v in measured}


def series_from_json(values: Any, count: int, convert: Callable[[Any], Any], *, number: bool) -> Any:
    """What :func:`series_to_json` wrote, as a list of ``count`` entries or a float64 array.

    Args:
        values: the JSON value.
        count: how many steps the line has.
        convert: turns one entry that is not null into a value, or raises ValueError.
        number: whether the entries are floats; measured at every step, they come back as an array.

    Raises:
        ValueError: it is no such list or map, or its length is another.
    """
    if type(values) is dict:
        entries: list[Any] = [None] * count
        for place, value in values.items():
            entries[_place(place, count)] = None if value is None else convert(value)
        values = entries
    elif type(values) is not list:
        raise ValueError("not a list")
    elif len(values) != count:
        raise ValueError("lists of different lengths")
    elif number and set(map(type, values)) <= {float, type(None)}:
        pass
    else:
        values = [None if v is None else convert(v) for v in values]
    return np.array(values, np.float64) if number and None not in values else values


def _place(text: str, count: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < count:
        return int(text)
    raise ValueError(f"no step at {text!r:.20}")


def ends(first: float, durations: Values) -> Values:
    """When each step ended: the first at ``first``, each following its duration later; seconds.

    Whole microseconds are summed, so that the sums are exact.
    """
    micro = np.rint(durations * 1e6)
    micro[0] = np.rint(first * 1e6)
    result: Values = np.cumsum(micro) / 1e6
    return result


def starts_only(times: Any, durations: Any) -> bool:
    """Whether the times follow from the first of them and the durations, to the last bit."""
    if not (isinstance(times, np.ndarray) and isinstance(durations, np.ndarray)):
        return False
    if len(times) != len(durations) or len(times) < 2 or not math.isfinite(times.item(0)):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.array_equal(ends(times.item(0), durations), times))
