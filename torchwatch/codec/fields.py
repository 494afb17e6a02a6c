"""What a dataclass says about its fields, looked up once per class."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any

import numpy as np


@cache
def field_names(cls: type) -> tuple[str, ...]:
    """Names of the fields, in their order."""
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotation of each field, without its ``| None``."""
    hints = typing.get_type_hints(cls)
    return {name: required(hints[name]) for name in field_names(cls)}


@cache
def column_fields(cls: type) -> frozenset[str]:
    """The fields that are columns, or maps of columns."""
    return frozenset(
        name
        for name, hint in field_types(cls).items()
        if any(typing.get_origin(h) is np.ndarray for h in (hint, *typing.get_args(hint)[1:]))
    )


def required(hint: Any) -> Any:
    """The annotation without its ``| None``; one of several types stays as it is."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    kinds = [a for a in typing.get_args(hint) if a is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint
