"""From Python objects to JSON values; it never fails."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.codec.columns import column_to_json
from torchwatch.codec.fields import column_fields, field_names
from torchwatch.codec.nonfinite import Nonfinite, escaped

LONGEST_TEXT = 1000
"""Characters kept of an object that had to be turned into text."""

DEEPEST = 24
"""Levels of nested lists and maps that are kept as such."""

_PLAIN = frozenset({str, int, bool, type(None)})
_INT64 = 2**63


def fields_to_json(
    value: object,
    found: Nonfinite,
    prefix: str = "",
    above: tuple[int, ...] = (),
    *,
    keep_none: bool = False,
) -> dict[str, Any]:
    """The fields of a dataclass instance as JSON values; those that are None are left out or kept.

    ``prefix`` is its path with a dot at the end, or nothing for the line itself.
    """
    result: dict[str, Any] = {}
    cls: Any = type(value)
    columns = column_fields(cls)
    for name in field_names(cls):
        item = getattr(value, name)
        kind = type(item)
        if item is None:
            if keep_none:
                result[name] = None
        elif kind in _PLAIN:
            result[name] = item
        elif kind is float:
            result[name] = found.number(item, prefix + name)
        elif name in columns:
            result[name] = _columns(item, found, prefix + name, above)
        else:
            result[name] = to_json(item, found, prefix + name, above)
    return result


def _columns(value: Any, found: Nonfinite, path: str, above: tuple[int, ...]) -> Any:
    """A column or a map of columns; anything else by the general rules."""
    if _is_column(value):
        return column_to_json(value, found, path)
    if type(value) is dict and all(type(k) is str and _is_column(v) for k, v in value.items()):
        return {k: column_to_json(v, found, f"{path}.{escaped(k)}") for k, v in value.items()}
    return to_json(value, found, path, above)


def _is_column(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype == np.float32 and value.ndim == 1


def to_json(value: Any, found: Nonfinite, path: str, above: tuple[int, ...] = ()) -> Any:
    """Any value as JSON, by the rules in this module's docstring; ``above`` are the ids of its containers."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return found.number(value, path)
    try:
        if kind is np.ndarray:
            return _array(value, found, path, above)
        if kind is dict:
            return map_to_json(value, found, f"{path}.", above)
        if kind is list or kind is tuple:
            return _sequence(value, found, path, above)
        return _foreign(value, found, path, above)
    except Exception:  # noqa: BLE001 - the host's objects may raise anything, or change while they are read
        return described(value)


def described(value: object) -> str:
    """The object as text: its ``str()`` cut at :data:`LONGEST_TEXT`, or its type where even that fails."""
    try:
        text = str.__str__(str(value))
    except Exception:  # noqa: BLE001 - the host's objects may raise anything from any method
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _array(value: npt.NDArray[Any], found: Nonfinite, path: str, above: tuple[int, ...]) -> Any:
    if value.ndim == 1 and value.dtype.kind == "f":
        return found.column(value, path)
    return to_json(value.tolist(), found, path, above)


def map_to_json(value: Mapping[Any, Any], found: Nonfinite, prefix: str, above: tuple[int, ...] = ()) -> Any:
    """A map as JSON; ``prefix`` is its path with a dot at the end, or nothing for the line itself."""
    if len(above) >= DEEPEST or id(value) in above:
        return described(value)
    above = (*above, id(value))
    result = {}
    for key, item in value.items():
        name = key if type(key) is str else described(key)
        result[name] = to_json(item, found, prefix + escaped(name), above)
    return result


def _sequence(value: Sequence[Any], found: Nonfinite, path: str, above: tuple[int, ...]) -> Any:
    kinds = set(map(type, value))
    if kinds <= _PLAIN or (kinds == {float} and math.isfinite(sum(value))):
        return list(value)
    if len(above) >= DEEPEST or id(value) in above:
        return described(value)
    above = (*above, id(value))
    return [to_json(item, found, f"{path}.{i}", above) for i, item in enumerate(value)]


def _foreign(value: Any, found: Nonfinite, path: str, above: tuple[int, ...]) -> Any:
    """Subclasses of what JSON knows, numpy scalars and dataclasses; ``described`` for everything else."""
    if isinstance(value, (float, np.floating)):
        return found.number(float(value), path)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, np.ndarray):
        return _array(np.asarray(value), found, path, above)
    if isinstance(value, Mapping):
        return map_to_json(value, found, f"{path}.", above)
    if isinstance(value, (list, tuple)):
        return _sequence(value, found, path, above)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and id(value) not in above:
        return fields_to_json(value, found, f"{path}.", (*above, id(value)))
    return described(value)


def mended(value: Any) -> Any:
    """JSON values that the serialiser refused, with their text and integers made fit for it."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {mended(k): mended(v) for k, v in value.items()}
    if isinstance(value, list):
        return [mended(v) for v in value]
    if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
        try:
            return float(value)
        except OverflowError:
            return described(value)
    return value
