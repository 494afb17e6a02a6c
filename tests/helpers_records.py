"""Records made up by hypothesis from the annotations of their fields, and how to compare them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

import numpy as np
from hypothesis import strategies as st

from torchwatch.records import (
    KINDS,
    MISSING,
    STEP_SCALARS,
    Layout,
    OptimizerInfo,
    ParameterInfo,
    Record,
    Step,
    Steps,
    Unknown,
    batch,
    is_missing,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8) | st.sampled_from(["a.b", "~", "~1", ".", "0", "a\n\x1b[31m"])
FLOATS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
_ENTRIES = st.floats(width=32) | st.just(None)
COLUMNS = (st.lists(_ENTRIES, max_size=6) | st.builds(lambda v, n: [v] * n, _ENTRIES, st.integers(0, 9))).map(
    lambda values: np.array([MISSING if v is None else v for v in values], np.float32)
)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.none() | _values(next(a for a in arguments if a is not type(None)))
    if origin is np.ndarray:
        return COLUMNS
    if origin is list:
        return st.lists(_values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXT, _values(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        return instances(typing.cast("type", hint))
    return {Any: JSON, float: FLOATS, int: INT64, bool: st.booleans(), str: TEXT}[hint]


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Instances of a dataclass, every field filled by its annotation."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: _values(hints[f.name]) for f in dataclasses.fields(cls)})


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Layouts whose parameters belong to listed layers and optimizers."""
    layout: Layout = draw(instances(Layout))
    if not layout.layers:
        return dataclasses.replace(layout, parameters=[])
    parameters: list[ParameterInfo] = []
    optimizers = [*layout.optimizers, OptimizerInfo("SGD", [{"lr": 0.1}])]
    for parameter in layout.parameters:
        layer = draw(st.integers(0, len(layout.layers) - 1))
        optimizer = draw(st.none() | st.just(len(optimizers) - 1))
        group = None if optimizer is None else 0
        parameters.append(dataclasses.replace(parameter, layer=layer, optimizer=optimizer, group=group))
    return dataclasses.replace(layout, parameters=parameters, optimizers=optimizers)


METRICS = st.none() | st.dictionaries(TEXT, FLOATS, min_size=1, max_size=3)
STEPS = instances(Step).flatmap(
    lambda s: METRICS.map(lambda metrics: dataclasses.replace(s, metrics=metrics))
)


@st.composite
def lines(draw: st.DrawFn) -> list[Step]:
    """Steps as they share a line: usually consecutive, one after the other, alike in some fields."""
    steps: list[Step] = draw(st.lists(STEPS, min_size=1, max_size=4))
    alike = draw(st.sets(st.sampled_from([n for n in STEP_SCALARS if n not in ("step", "metrics")])))
    shared = {n: getattr(steps[0], n) for n in alike}
    steps = [dataclasses.replace(s, **shared) for s in steps]
    if draw(st.booleans()):
        first = draw(st.integers(-(2**40), 2**40))
        steps = [dataclasses.replace(s, step=first + i) for i, s in enumerate(steps)]
    if draw(st.booleans()):
        took = draw(st.lists(st.floats(0, 1e3), min_size=len(steps), max_size=len(steps)))
        ended = draw(st.floats(0, 1e6))
        for i, t in enumerate(took):
            ended += t
            steps[i] = dataclasses.replace(steps[i], time_s=ended, step_time_s=t)
    return steps


UNKNOWNS = st.builds(
    Unknown,
    name=TEXT,
    data=st.dictionaries(TEXT.filter(lambda k: k not in ("kind", "nonfinite")), JSON, max_size=4),
)


def records(kind: str) -> st.SearchStrategy[Record]:
    """Records of one kind, as its annotations allow."""
    cls = KINDS[kind]
    if cls is Layout:
        return layouts()
    if cls is Steps:
        return lines().map(batch)
    return instances(cls)


def same(one: Any, other: Any) -> bool:
    """Equality in which NaN equals NaN, but never MISSING."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
        column = alike and one.dtype == np.float32
        return bool(alike and (not column or np.array_equal(is_missing(one), is_missing(other))))
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return bool(one == other)
