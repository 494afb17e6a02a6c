"""Dataclasses and arrays as strict JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Dataclasses as dicts, arrays and tuples as lists, non-finite numbers as None, the rest as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)):
        return [plain(v) for v in value]
    return _scalar(value)


def _array(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind != "f":
        return plain(array.tolist())
    if np.isfinite(array).all():
        return array.tolist()
    holes = array.astype(object)
    holes[~np.isfinite(array)] = None
    return holes.tolist()


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)  # no JSON number that others read
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value) if isinstance(value, Path) else repr(value)
