r"""Dataclasses to strict JSON and back, derived from their fields; `records` says what the lines mean.

**Writing never fails.** What JSON cannot say is put as near as it can: an integer beyond 64 bits becomes a
float, a key that is no text becomes its ``str()``, a lone surrogate becomes ``\udc80`` spelled out, and any
other object (a set, a path, a device) becomes its ``str()``, cut at :data:`LONGEST_TEXT` characters; so does
whatever lies deeper than :data:`DEEPEST` levels or contains itself. A one-dimensional float array becomes a
float32 column; any other array its nested lists.

**Non-finite numbers** are ``null``, and the map of :class:`Nonfinite` tells which they were: a path of keys
and indices joined by dots (in a key, ``~`` is written ``~0`` and a dot ``~1``) leads to "nan", "inf" or
"-inf". A path that leads to a list speaks of all of its nulls.

**Reading** takes a field's value only if it has the annotated type (any number will do for a float, a whole
one for an int); null is as good as absent (but not in a list), unknown fields are ignored; everything else is
a ValueError.

Longer than a file should be: writing and reading mirror each other, rule by rule.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float32]

_MISSING_BITS = 0x7FC007A2

MISSING: np.float32 = np.uint32(_MISSING_BITS).view(np.float32)
"""The entry of a column that was not measured; compare with :func:`is_missing`, never with ``==``."""

LONGEST_TEXT = 1000
"""Characters kept of an object that had to be turned into text."""

DEEPEST = 24
"""Levels of nested lists and maps that are kept as such."""

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_PLAIN = frozenset({str, int, bool, type(None)})
_INT64 = 2**63


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


class Nonfinite:
    """The non-finite numbers of one line, collected while it is written."""

    __slots__ = ("_columns", "_words")

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._columns: list[tuple[str, Column]] = []

    def number(self, value: float, path: str) -> float | None:
        """The number, or None when it is not finite (then it is noted)."""
        if math.isfinite(value):
            return value
        self._words[path] = _word(value)
        return None

    def column(self, values: npt.NDArray[Any], path: str) -> Column:
        """The array as a float32 column, whose entries :meth:`words` will look through."""
        with np.errstate(over="ignore", invalid="ignore"):
            column = np.ascontiguousarray(values, np.float32)
        self._columns.append((path, column))
        return column

    def words(self) -> dict[str, str]:
        """The finished map. All columns are looked at together first: usually all is well."""
        if self._columns and is_bad(np.concatenate([c for _, c in self._columns])).any():
            for path, column in self._columns:
                self._look_through(column, path)
        return self._words

    def _look_through(self, column: Column, path: str) -> None:
        bad = np.flatnonzero(is_bad(column))
        words = [_word(v) for v in column[bad].tolist()]
        if len(words) == len(column) and len(set(words)) == 1:
            self._words[path] = words[0]
        else:
            self._words.update((f"{path}.{i}", word) for i, word in zip(bad.tolist(), words, strict=True))


def _word(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def fields_to_json(value: object, found: Nonfinite, *, keep_none: bool = False) -> dict[str, Any]:
    """The fields of a dataclass instance as JSON values; those that are None are left out or kept."""
    result: dict[str, Any] = {}
    cls: Any = type(value)
    for name in _field_names(cls):
        item = getattr(value, name)
        kind = type(item)
        if item is None:
            if keep_none:
                result[name] = None
        elif kind in _PLAIN:
            result[name] = item
        elif kind is float:
            result[name] = found.number(item, name)
        else:
            result[name] = to_json(item, found, name)
    return result


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
        items = {name: getattr(value, name) for name in _field_names(type(value))}
        known = {name: item for name, item in items.items() if item is not None}
        return map_to_json(known, found, f"{path}.", (*above, id(value)))
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


def escaped(key: str) -> str:
    """The key as one part of a path."""
    return key.replace("~", "~0").replace(".", "~1") if "." in key or "~" in key else key


def restore(body: Any, words: Any) -> None:
    """Put the non-finite numbers back into a line's body; a path that leads nowhere is passed over.

    Raises:
        ValueError: ``words`` is not such a map.
    """
    if not isinstance(words, dict):
        raise ValueError("`nonfinite` is not a map")  # noqa: TRY004 - a line is unreadable for one reason only
    for path, word in words.items():
        number = _WORDS.get(word) if isinstance(word, str) else None
        if number is not None:
            _restore(body, path.split("."), number)


def _restore(body: Any, path: list[str], number: float) -> None:
    *way, last = path
    for part in way:
        key = _place(body, part)
        if key is None:
            return
        body = body[key]
    key = _place(body, last)
    if key is None:
        return
    if body[key] is None:
        body[key] = number
    elif isinstance(body[key], list):
        body[key] = [number if v is None else v for v in body[key]]


def _place(body: Any, part: str) -> Any:
    """Where the part of a path leads in a map or list; None when it leads nowhere."""
    if isinstance(body, dict):
        key = part.replace("~1", ".").replace("~0", "~")
        return key if key in body else None
    if isinstance(body, list) and part.isascii() and part.isdecimal() and len(part) < 10:
        return int(part) if int(part) < len(body) else None
    return None


Convert = Callable[[Any], Any]


def build(cls: type, body: Any) -> Any:
    """The dataclass instance that a JSON object describes.

    Raises:
        ValueError: a required field is absent, or a field has a value of the wrong type.
    """
    if type(body) is not dict:
        raise ValueError(f"{cls.__name__}: not a JSON object")
    exact, converters = _plan(cls)
    known = {}
    for name, value in body.items():
        if exact.get(name) is type(value):
            known[name] = value
        elif value is not None and name in converters:
            known[name] = converters[name](value)
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: a required field is absent") from error


@cache
def _field_names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def _plan(cls: type) -> tuple[dict[str, type], dict[str, Convert]]:
    """For each field the type that needs no conversion, if there is one, and how others are converted."""
    hints = {name: _required(hint) for name, hint in typing.get_type_hints(cls).items()}
    exact = {n: hints[n] for n in _field_names(cls) if hints[n] in (float, str, bool)}
    return exact, {n: _converter(hints[n]) for n in _field_names(cls)}


def _required(hint: Any) -> Any:
    """The annotation without its ``| None``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _converter(hint: Any) -> Convert:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is np.ndarray:
        return _column
    if origin is list:
        return _list_of(arguments[0])
    if origin is dict:
        return _dict_of(arguments[1])
    if dataclasses.is_dataclass(hint):
        return lambda value: build(typing.cast("type", hint), value)
    return _SCALARS[hint]


def _float(value: Any) -> float:
    if type(value) is float or type(value) is int or type(value) is bool:
        return float(value)
    raise ValueError(f"not a number: {value!r:.80}")


def _int(value: Any) -> int:
    if (type(value) is int or type(value) is bool or (type(value) is float and value.is_integer())) and (
        -_INT64 <= value < _INT64
    ):
        return int(value)
    raise ValueError(f"not a whole number of 64 bits: {value!r:.80}")


def _bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise ValueError(f"not true or false: {value!r:.80}")


def _str(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError(f"not text: {value!r:.80}")


def _same(value: Any) -> Any:
    return value


_SCALARS: dict[Any, Convert] = {float: _float, int: _int, bool: _bool, str: _str, Any: _same}


def _items(values: Iterable[Any], hint: Any, convert: Convert) -> list[Any] | None:
    """The items converted, nulls kept; None when no item needs it."""
    if hint is Any or (hint in (float, str, bool) and set(map(type, values)) <= {hint, type(None)}):
        return None
    return [None if v is None else convert(v) for v in values]


def _list_of(hint: Any) -> Convert:
    inner = _required(hint)
    convert = _converter(inner)
    nulls = inner is Any or inner is not hint

    def read(values: Any) -> list[Any]:
        if type(values) is not list:
            raise ValueError("not a list")
        if not nulls and None in values:
            raise ValueError("a list with nulls")
        items = _items(values, inner, convert)
        return values if items is None else items

    return read


def _dict_of(hint: Any) -> Convert:
    inner = _required(hint)
    convert = _converter(inner)
    nulls = inner is Any or inner is not hint

    def read(values: Any) -> dict[str, Any]:
        if type(values) is not dict:
            raise ValueError("not a map")
        if not nulls and None in values.values():
            values = {k: v for k, v in values.items() if v is not None}
        items = _items(values.values(), inner, convert)
        return values if items is None else dict(zip(values, items, strict=True))

    return read


def _column(values: Any) -> Column:
    """A float32 column; null is :data:`MISSING` (non-finite numbers were restored before)."""
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
