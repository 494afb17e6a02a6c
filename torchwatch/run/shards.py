"""What adds up when the values of a parameter are spread over ranks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchwatch.records import MISSING, is_missing
from torchwatch.run.contents import ColumnSeries

if TYPE_CHECKING:
    import numpy.typing as npt

    from torchwatch.records import Layout, RunHeader
    from torchwatch.run.contents import Series

    Floats = npt.NDArray[np.float64]

SHARDS_ONLY = "this rank's shards only"
"""What the coverage of gradients says where parameters are spread over ranks."""

_LARGEST = float(np.finfo(np.float32).max)
_MOST_RANKS = 1 << 40


class RankSeries(NamedTuple):
    """A scalar of several ranks: ``steps`` (n,) int64 and ``values`` (n, ranks) float64, by rank.

    Only steps at which every rank measured it are in it. A NaN was measured as NaN.
    """

    steps: npt.NDArray[np.int64]
    values: Floats


def common_rows(series: list[Series]) -> RankSeries:
    """The rows that all series have; of a step that comes twice, the first."""
    uniques = [np.unique(s.steps, return_index=True) for s in series]
    steps = uniques[0][0]
    for own, _ in uniques[1:]:
        steps = np.intersect1d(steps, own, assume_unique=True)
    rows = [s.values[first[np.isin(own, steps)]] for s, (own, first) in zip(series, uniques, strict=True)]
    return RankSeries(steps, np.stack(rows, axis=1))


def shard_counts(header: RunHeader, layout: Layout) -> npt.NDArray[np.int64]:
    """Over how many ranks each parameter of the layout is spread; 1: every rank holds all of it.

    From the header, which knew the model as it was when the run began. A model that was spread later is in
    the coverage alone: then everything counts as spread over all ranks. Shape (parameters,).
    """
    told = header.device.get("shards")
    most, others = (told.get("most"), told.get("others")) if isinstance(told, dict) else (None, None)
    if not _is_count(most):
        most = header.world if SHARDS_ONLY in layout.coverage.get("gradients", "") else 1
    others = others if isinstance(others, dict) else {}
    counts = [others.get(p.name, most) for p in layout.parameters]
    return np.array([c if _is_count(c) else most for c in counts], np.int64)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < _MOST_RANKS


class _Rule(NamedTuple):
    """How a column's values for the shards of a parameter give the value for all of it."""

    unite: np.ufunc
    squared: bool = False


JOINED_COLUMNS = {
    "grad_norms": _Rule(np.add, squared=True),
    "weight_norms": _Rule(np.add, squared=True),
    "grad_absmax": _Rule(np.maximum),
    "grad_nonfinite": _Rule(np.add),
    "weight_nonfinite": _Rule(np.add),
}
"""Columns that can be told for a whole parameter from its shards, and how."""


def joined_column(
    name: str, own: ColumnSeries, others: list[list[ColumnSeries]], counts: npt.NDArray[np.int64], world: int
) -> ColumnSeries:
    """Rank 0's column with the other ranks' shards, at the steps that all of them observed.

    A parameter that is spread over fewer ranks than there are has several copies of each shard (hybrid
    sharding): a sum over all ranks counts by its share ``counts / world``. A shard can be empty, and is then
    missing in its rank's column.
    """
    rule = JOINED_COLUMNS[name]
    steps, tables = _common_tables(own, others)
    united = np.zeros_like(tables[0], np.float64)
    measured = np.zeros(united.shape, bool)
    for values in tables:
        missing = is_missing(values)
        measured |= ~missing
        wide = np.where(missing, 0.0, values.astype(np.float64))
        united = rule.unite(united, wide**2 if rule.squared else wide)
    if rule.unite is np.add:
        united *= counts / world
    if rule.squared:
        united = np.sqrt(united)
    values, spread = tables[0].copy(), counts > 1
    values[:, spread] = _narrow(united)[:, spread]
    values[~measured & spread] = MISSING
    return own._replace(steps=steps, values=values)


def _narrow(values: Floats) -> npt.NDArray[np.float32]:
    """As float32, large values not overflowing to infinity."""
    return np.where(np.isfinite(values), np.minimum(values, _LARGEST), values).astype(np.float32)


def _common_tables(
    own: ColumnSeries, others: list[list[ColumnSeries]]
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.float32]]]:
    """The steps that all ranks observed under layouts of the same names, and each rank's values at them."""
    names = [p.name for p in own.layout.parameters]
    fitting = [[s for s in segments if [p.name for p in s.layout.parameters] == names] for segments in others]
    observed, tables = [], []
    for segments in ([own], *fitting):
        steps = np.concatenate([np.empty(0, np.int64), *(s.steps for s in segments)])
        steps, first = np.unique(steps, return_index=True)
        observed.append(steps)
        empty = np.empty((0, len(names)), np.float32)
        tables.append(np.concatenate([empty, *(s.values for s in segments)])[first])
    common = functools.reduce(np.intersect1d, observed)
    return common, [values[np.isin(steps, common)] for steps, values in zip(observed, tables, strict=True)]


def stepped(layout: Layout) -> npt.NDArray[np.bool_]:
    """Which parameters an optimizer holds; all where none has been seen. Shape (parameters,)."""
    held = np.array([p.optimizer is not None for p in layout.parameters], bool)
    return held if held.any() else ~held


def norm_of(columns: ColumnSeries) -> Floats:
    """The norm over all parameters that are stepped, from a column of their norms. Shape (n,)."""
    values = columns.values[:, stepped(columns.layout)]
    squares = np.where(is_missing(values), 0.0, values.astype(np.float64)) ** 2
    norms: Floats = np.sqrt(np.sum(squares, axis=1))
    return norms
