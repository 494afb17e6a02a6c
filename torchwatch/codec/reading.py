"""From JSON values to dataclass instances, by the annotations of their fields."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from torchwatch.codec.columns import column_from_json
from torchwatch.codec.fields import field_types, required

_INT64 = 2**63

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
def _plan(cls: type) -> tuple[dict[str, type], dict[str, Convert]]:
    """For each field the type that needs no conversion, if there is one, and how others are converted."""
    hints = field_types(cls)
    exact = {n: hint for n, hint in hints.items() if hint in (float, str, bool)}
    return exact, {n: converter(hint) for n, hint in hints.items()}


@cache
def converter(hint: Any) -> Convert:
    """What turns a JSON value that is not null into one of this annotation, or raises ValueError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is np.ndarray:
        return column_from_json
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
    inner = required(hint)
    convert = converter(inner)
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
    inner = required(hint)
    convert = converter(inner)
    nulls = inner is Any or inner is not hint

    def read(values: Any) -> dict[str, Any]:
        if type(values) is not dict:
            raise ValueError("not a map")
        if not nulls and None in values.values():
            values = {k: v for k, v in values.items() if v is not None}
        items = _items(values.values(), inner, convert)
        return values if items is None else dict(zip(values, items, strict=True))

    return read
