"""Columns to slice errors by, and the error of each slice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._scored import Decisions, Numbers, codes_of, output_names
from torchwatch.examinations.case import Case
from torchwatch.results.failures import Slices
from torchwatch.statistics.metrics import over
from torchwatch.statistics.resampling import max_t, mean_interval, weights
from torchwatch.text import number

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_MOST_VALUES = 40
"""A column with more distinct values is sliced by quantiles where it holds numbers, else not at all."""

_MOST_NUMBERS = 10
"""The same for numbers: a dozen distinct ages are a scale, not names."""

QUANTILE_BINS = 5
_PREDICTION_BINS = 10
_MOST_OUTPUTS = 4
_LEAST = 5


@dataclass(frozen=True)
class Column:
    """One way to slice the samples.

    Attributes:
        name: of the column.
        kind: see :class:`~torchwatch.results.failures.Slices`.
        labels: slice of each sample (N,); −1 where it is in none.
        names: of the slices (S).
        output: the output whose bias is meant; None for the mean over the outputs.
    """

    name: str
    kind: str
    labels: Integers
    names: tuple[str, ...]
    output: int | None = None


def columns_of(case: Case, known: Numbers | Decisions) -> tuple[list[Column], dict[str, str]]:
    """All columns worth slicing by, and the others with the reason why not."""
    columns = []
    left: dict[str, str] = {}
    for column in _by_prediction(case, known):
        if len(column.names) > 1:
            columns.append(column)
        else:
            left[column.name] = "it has a single value"
    given = dict(case.samples.metadata)
    if case.groups is not None and not isinstance(case.inputs.groups, str):
        given["group"] = case.groups
    for name, values in given.items():
        is_group = name == case.inputs.groups or values is case.groups
        found = _of_values(name, "group" if is_group else "metadata", values)
        if isinstance(found, Column):
            columns.append(found)
        else:
            left[name] = found
    return columns, left


def _of_values(name: str, kind: str, values: list[Any]) -> Column | str:
    """A column of metadata: by value, or by quantiles of numbers; else the reason why not."""
    if any(isinstance(v, (list, tuple, dict, set)) for v in values):
        return "its values are collections"
    numeric = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values)
    distinct = len({str(v) for v in values})
    if distinct < 2:
        return "it has a single value"
    if numeric and distinct > _MOST_NUMBERS:
        return by_quantiles(name, kind, np.asarray(values, np.float64), QUANTILE_BINS)
    if distinct > _MOST_VALUES and kind == "metadata":
        return f"it has {distinct:,} distinct values"
    codes = codes_of(values)
    names = [""] * (int(codes.max()) + 1)
    for code, value in zip(codes, values, strict=True):
        names[code] = str(value)
    return Column(name, kind, codes, tuple(names))


def by_quantiles(name: str, kind: str, values: Floats, bins: int, output: int | None = None) -> Column:
    """Bins of (nearly) equal count; values that are not finite are in none.

    Args:
        name: of the column.
        kind: of the column.
        values: (N,).
        bins: at most so many: where values repeat, there are fewer.
        output: see :class:`Column`.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return Column(name, kind, np.full(values.size, -1), (), output)
    edges = np.unique(np.quantile(values[finite], np.linspace(0, 1, bins + 1)))
    if edges.size < 3:
        edges = np.array([edges[0], edges[-1]])
    labels = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(edges.size - 2, 0))
    labels = np.where(finite, labels, -1).astype(np.int64)
    ranges = [f"{number(a)} … {number(b)}" for a, b in pairwise(edges)]
    return Column(name, kind, labels, tuple(ranges), output)


def _by_prediction(case: Case, known: Numbers | Decisions) -> list[Column]:
    """By predicted value of the first outputs, or by predicted class and confidence."""
    if isinstance(known, Numbers):
        names = output_names(case, known.predictions.shape[1])[:_MOST_OUTPUTS]
        return [
            by_quantiles(
                "predicted value" if len(names) == 1 else f"predicted {name}",
                "predicted value",
                known.predictions[:, i],
                _PREDICTION_BINS,
                i,
            )
            for i, name in enumerate(names)
        ]
    count = np.bincount(known.sample, minlength=known.error.size)
    confidence = over(np.bincount(known.sample, known.confidence, minlength=known.error.size), count)
    columns = [by_quantiles("confidence", "confidence", confidence, QUANTILE_BINS)]
    if known.labels == 1 and count.max(initial=0) <= 1 and known.true.size:
        classes, codes = np.unique(known.predicted, return_inverse=True)
        if classes.size <= _MOST_VALUES:
            labels = np.full(known.error.size, -1)
            labels[known.sample] = codes
            named = tuple(case.class_names[c] for c in classes)
            columns.append(Column("predicted class", "predicted class", labels, named))
    return columns


def sliced(column: Column, known: Numbers | Decisions, unit: Integers, rng: np.random.Generator) -> Slices:
    """Count, error with interval, bias and corrected p of each slice, in the column's order."""
    if column.kind == "group":  # a group that is drawn as a whole cannot be compared with other groups
        unit = np.arange(unit.size)
    inside = (column.labels >= 0) & np.isfinite(known.error)
    labels, error = column.labels[inside], known.error[inside]
    size = len(column.names)
    count = np.bincount(labels, minlength=size).astype(np.int64)
    bounds = [_interval(error[labels == i], unit[inside][labels == i], rng) for i in range(size)]
    p = np.ones(size)
    if labels.size:
        p[: labels.max() + 1] = max_t(error, labels, rng, np.unique(unit[inside], return_inverse=True)[1])
    return Slices(
        column=column.name,
        kind=column.kind,
        names=column.names,
        count=count,
        error=over(np.bincount(labels, error, minlength=size), count),
        error_low=np.array([b[0] for b in bounds]),
        error_high=np.array([b[1] for b in bounds]),
        bias=_bias(column, known, size),
        p=p,
    )


def _interval(error: Floats, unit: Integers, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap interval of a slice's mean error over the units inside it; NaN for few."""
    units = np.unique(unit, return_inverse=True)[1]
    if error.size < _LEAST or units.max() < 1:
        return math.nan, math.nan
    return mean_interval(error, weights(units, rng))


def _bias(column: Column, known: Numbers | Decisions, size: int) -> Floats:
    """Mean of target minus prediction of each slice, of one output or over all."""
    if not isinstance(known, Numbers):
        return np.full(size, np.nan)
    chosen = slice(None) if column.output is None else slice(column.output, column.output + 1)
    fine = known.finite[:, chosen] & (column.labels >= 0)[:, None]
    sample = np.nonzero(fine)[0]
    residual = known.targets[:, chosen][fine] - known.predictions[:, chosen][fine]
    label = column.labels[sample]
    return over(np.bincount(label, residual, minlength=size), np.bincount(label, minlength=size))
