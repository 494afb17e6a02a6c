"""The metric of each group, how far groups spread, and how variance splits between and within them.

Groups differ by chance as well: the spread and the worst group are compared with those of groups drawn by
chance. A model may also only tell the groups apart, and know nothing of what happens inside them; then
predictions and targets correlate over the groups' means and not within.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._groups_remarks import FEW, group_remarks
from torchwatch.examinations._scored import Decisions, Numbers, codes_of, scored
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results.groups import Groups, Split
from torchwatch.statistics import metrics
from torchwatch.statistics.classification import wilson
from torchwatch.statistics.resampling import between_p, max_t, mean_interval, weights
from torchwatch.statistics.variance import components
from torchwatch.text import printable

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_Z95 = 1.96


@dataclass(frozen=True)
class _Table:
    """What is compared: badness of each sample and its group, of the samples that can be scored.

    Attributes:
        bad: squared error, or share of wrong decisions (N,).
        labels: group (N,).
        names: of the groups (G).
        single: every sample is a single decision, so that shares are of independent yes and no.
        numbers: the regression's predictions and targets of the same samples, (N, K) each; None for classes.
    """

    bad: Floats
    labels: Integers
    names: tuple[str, ...]
    single: bool
    numbers: tuple[Floats, Floats] | None


def examine(case: Case) -> Groups:
    """Compare groups, or true classes where a classifier has no groups."""
    known = scored(case)
    groups, by = _groups(case, known)
    table = _table(known, groups)
    if len(table.names) < 2:
        raise NotApplicable("all samples that can be scored are of one group: there is nothing to compare")
    return _compared(case, table, by)


def _groups(case: Case, known: Numbers | Decisions) -> tuple[list[Any], str]:
    if case.groups is not None:
        return case.groups, "group"
    if isinstance(known, Decisions) and case.task.name in ("binary", "multiclass"):
        names = case.class_names
        of: list[Any] = [None] * known.error.size
        for sample, true in zip(known.sample, known.true, strict=True):
            of[sample] = names[true]
        return of, "class"
    columns = ", ".join(printable(c, 60) for c in case.samples.metadata)
    hint = f"; the metadata columns are {columns}" if columns else ""
    raise NotApplicable(
        f"no groups were given: pass groups= a metadata column's name or a sequence as long as the data{hint}"
    )


def _table(known: Numbers | Decisions, groups: list[Any]) -> _Table:
    kept = np.flatnonzero(np.isfinite(known.error))
    codes = codes_of([groups[i] for i in kept])
    first: dict[int, str] = {}
    for i, code in zip(kept, codes, strict=True):
        first.setdefault(int(code), str(groups[i]))
    names = tuple(first[i] for i in range(len(first)))
    if isinstance(known, Numbers):
        whole = known.finite[kept].all(0)  # outputs with gaps cannot be split
        numbers = (known.predictions[kept][:, whole], known.targets[kept][:, whole]) if whole.any() else None
        return _Table(known.error[kept], codes, names, single=False, numbers=numbers)
    count = np.bincount(known.sample, minlength=known.error.size)
    wrong = np.bincount(known.sample, ~known.right, minlength=known.error.size)
    single = bool(count.max(initial=0) <= 1)
    return _Table(metrics.over(wrong, count)[kept], codes, names, single=single, numbers=None)


def _compared(case: Case, table: _Table, by: str) -> Groups:
    rng = case.rng("groups")
    regression = case.task.name == "regression"
    size = len(table.names)
    count = np.bincount(table.labels, minlength=size).astype(np.int64)
    bad = metrics.over(np.bincount(table.labels, table.bad, minlength=size), count)
    value = _metric(bad, regression=regression)
    low, high = _intervals(case, table, rng, regression=regression)
    few = count < FEW
    spread, spread_p, worst, worst_p = _spread(table, bad, value, few, rng)
    splits = _splits(table)
    within, between, within_low, within_high = _correlations(table, few)
    order = np.argsort(-bad, kind="stable")
    result = Groups(
        by=by,
        metric="RMSE" if regression else "accuracy",
        higher_is_better=not regression,
        names=tuple(table.names[i] for i in order),
        count=count[order],
        value=value[order],
        low=low[order],
        high=high[order],
        few=few[order],
        overall=float(_metric(table.bad.mean(), regression=regression)),
        spread=spread,
        spread_p=spread_p,
        worst=None if worst is None else table.names[worst],
        worst_p=worst_p,
        splits=splits,
        pearson_within=within,
        pearson_between=between,
        within_low=within_low,
        within_high=within_high,
    )
    return replace(result, remarks=group_remarks(result, _residual_p(table, rng)))


def _metric(bad: Any, *, regression: bool) -> Any:
    return np.sqrt(bad) if regression else 1 - bad


def _intervals(
    case: Case, table: _Table, rng: np.random.Generator, *, regression: bool
) -> tuple[Floats, Floats]:
    """95 % interval of each group's metric."""
    size = len(table.names)
    if table.single:
        right = np.bincount(table.labels, 1 - table.bad, minlength=size)
        return wilson(right, np.bincount(table.labels, minlength=size))
    low, high = np.full(size, np.nan), np.full(size, np.nan)
    for i in range(size):
        mine = table.bad[table.labels == i]
        if mine.size > 1:
            ends = mean_interval(mine, weights(np.arange(mine.size), rng))
            low[i], high[i] = sorted(_metric(np.array(ends), regression=regression))
        case.tick(i + 1, size)
    return low, high


def _spread(
    table: _Table, bad: Floats, value: Floats, few: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[float, float, int | None, float]:
    """Spread over the groups with enough samples and its p; the worst of them and its p."""
    enough = np.flatnonzero(~few)
    if not enough.size:
        return math.nan, math.nan, None, math.nan
    worst = int(enough[np.argmax(bad[enough])])
    if enough.size < 2:
        return math.nan, math.nan, worst, math.nan
    inside = ~few[table.labels]
    labels = np.searchsorted(enough, table.labels[inside])
    values = table.bad[inside]
    p = max_t(values, labels, rng, np.arange(values.size))
    return (
        float(value[enough].std()),
        between_p(values, labels, rng),
        worst,
        float(p[np.searchsorted(enough, worst)]),
    )


# ---------------------------------------------------------------------- variance


def _splits(table: _Table) -> tuple[Split, ...]:
    quantities = {"errors": table.bad[:, None]}
    if table.numbers is not None:
        p, y = table.numbers
        scale = metrics.std(y) if y.shape[1] > 1 else np.ones(1)
        p, y = (v[:, scale > 0] / scale[scale > 0] for v in (p, y))
        quantities = {"targets": y, "predictions": p, "residuals": y - p, **quantities}
    return tuple(_split(name, values, table.labels) for name, values in quantities.items() if values.size)


def _split(quantity: str, values: Floats, labels: Integers) -> Split:
    between, within = (float(np.mean(v)) for v in components(values, labels))
    total = between + within
    return Split(quantity, between, within, between / total if total > 0 else math.nan)


def _residual_p(table: _Table, rng: np.random.Generator) -> float:
    """How often groups drawn by chance split the residuals as much (mean over the outputs)."""
    if table.numbers is None:
        return math.nan
    p, y = table.numbers
    return between_p((y - p).mean(1), table.labels, rng)


def _correlations(table: _Table, few: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Pearson within groups, between their means, and the interval of the former."""
    if table.numbers is None:
        return math.nan, math.nan, math.nan, math.nan
    p, y = table.numbers
    size = len(table.names)
    means = [_means(v, table.labels, size) for v in (p, y)]
    inside = [_inside(v, m[table.labels]) for v, m in zip((p, y), means, strict=True)]
    within = _median(metrics.pearson(*inside))
    enough = ~few
    between = math.nan
    if enough.sum() >= 3:
        between = _median(metrics.pearson(means[0][enough], means[1][enough]))
    freedom = len(p) - size - 2
    if not math.isfinite(within) or freedom < 1 or abs(within) >= 1:
        return within, between, math.nan, math.nan
    z, half = math.atanh(within), _Z95 / math.sqrt(freedom)
    return within, between, math.tanh(z - half), math.tanh(z + half)


def _inside(values: Floats, means: Floats) -> Floats:
    """What is left without the group's mean; exactly 0 where that is nothing but rounding."""
    left = values - means
    return np.where(metrics.std(left) > 1e-6 * metrics.std(values), left, 0.0)


def _means(values: Floats, labels: Integers, size: int) -> Floats:
    summed = np.zeros((size, values.shape[1]))
    np.add.at(summed, labels, values)
    return summed / np.bincount(labels, minlength=size)[:, None]


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


EXAMINATION = Examination(
    title="Groups",
    examine=examine,
    tells="on which groups the model fails, and whether it knows more than the group",
    needs_targets=True,
)
