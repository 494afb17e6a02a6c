"""The targets: balance, coverage, shift between splits, groups beside the rest."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._data_distances import ks, variation, variation_by_chance, wasserstein
from torchwatch.examinations._data_reading import Floats, Integers, Split
from torchwatch.examinations._data_values import levels, moments
from torchwatch.examinations.tasks import IGNORED
from torchwatch.results.data_quality import Cohorts, Labels, LabelShift

MOST_CLASSES = 1_000
"""With more (a vocabulary), classes are not listed."""
FEW = 5
_MOST_GROUPS = 200
_GRID = np.linspace(0, 1, 101)


def labels(data: Split, train: Split | None, names: list[str]) -> Labels | None:
    """What the targets are like; None without targets.

    Args:
        data: the data.
        train: the training data.
        names: of the classes; empty for numbers.
    """
    if data.y is None:
        return None
    if data.kind in ("classes", "tokens"):
        return _of_classes(data, train, names)
    return _of_columns(data, train, names)


def _of_classes(data: Split, train: Split | None, names: list[str]) -> Labels:
    theirs = _classes(train.y) if train is not None and train.y is not None else np.empty(0, dtype=np.int64)
    ours = _classes(data.y)
    size = max([len(names), *(int(v.max()) + 1 for v in (ours, theirs) if v.size)])
    names = [*names, *(str(i) for i in range(len(names), size))]
    count, train_count = np.bincount(ours, minlength=size), np.bincount(theirs, minlength=size)
    listed = size <= MOST_CLASSES
    present = count[count > 0]
    nothing = np.empty(0)
    return Labels(
        kind="classes",
        names=tuple(names) if listed else (),
        count=count if listed else np.empty(0, dtype=np.int64),
        train_count=train_count if listed and theirs.size else np.empty(0, dtype=np.int64),
        share=count / max(1, ours.size) if listed else nothing,
        train_share=train_count / theirs.size if listed and theirs.size else nothing,
        mean=nothing,
        std=nothing,
        commonest=nothing,
        quantiles=nothing,
        train_quantiles=nothing,
        absent=tuple(n for n, c in zip(names, count, strict=True) if not c) if listed else (),
        train_absent=_only_ours(names, count, train_count) if listed and theirs.size else (),
        majority=float(count.max() / ours.size) if ours.size else float("nan"),
        imbalance=float(present.max() / present.min()) if present.size else float("nan"),
    )


def _classes(y: Any) -> Integers:
    flat = y.reshape(-1)
    return np.asarray(flat[(flat != IGNORED) & (flat >= 0)])


def _only_ours(names: list[str], count: Integers, train_count: Integers) -> tuple[str, ...]:
    return tuple(n for n, c, t in zip(names, count, train_count, strict=True) if c and not t)


def _of_columns(data: Split, train: Split | None, names: list[str]) -> Labels:
    """Numbers, or labels that can each hold."""
    ours = [_finite(column) for column in data.y.T]
    theirs = [_finite(column) for column in train.y.T] if train is not None and train.y is not None else []
    held = data.kind == "labels"
    nothing, nan = np.empty(0), float("nan")
    named = names if len(names) == len(ours) else [str(i) for i in range(len(ours))]
    count = np.array([int((v > 0.5).sum()) if held else v.size for v in ours])
    train_count = np.array([int((v > 0.5).sum()) if held else v.size for v in theirs], dtype=np.int64)
    return Labels(
        kind=data.kind,
        names=tuple(named),
        count=count,
        train_count=train_count,
        share=count / max(1, len(data)),
        train_share=train_count / max(1, len(train)) if train is not None and theirs else nothing,
        mean=nothing if held else np.array([v.mean() if v.size else nan for v in ours]),
        std=nothing if held else np.array([v.std() if v.size else nan for v in ours]),
        commonest=nothing if held else np.array([_commonest(v) for v in ours]),
        quantiles=nothing if held else _quantiles(ours),
        train_quantiles=nothing if held or not theirs else _quantiles(theirs),
        absent=tuple(n for n, c in zip(named, count, strict=True) if held and not c),
        train_absent=_only_ours(named, count, train_count) if held and theirs else (),
        majority=nan,
        imbalance=nan,
    )


def _finite(column: npt.NDArray[Any]) -> Floats:
    values: Floats = column[np.isfinite(column)].astype(np.float64)
    return values


def _commonest(values: Floats) -> float:
    return (
        float(np.unique(values, return_counts=True)[1].max() / values.size) if values.size else float("nan")
    )


def _quantiles(columns: list[Floats]) -> Floats:
    return np.array([np.quantile(v, _GRID) if v.size else np.full(101, np.nan) for v in columns])


# ---------------------------------------------------------------------- between splits


def shift(
    data: Split, train: Split | None, names: tuple[str, ...], rng: np.random.Generator
) -> LabelShift | None:
    """How far apart the targets of two splits are; None where one has none."""
    if train is None or train.y is None or data.y is None:
        return None
    if data.kind in ("classes", "tokens"):
        size = 1 + max((int(v.max()) for v in (_classes(data.y), _classes(train.y)) if v.size), default=0)
        counts = [np.bincount(_classes(s.y), minlength=size) for s in (data, train)]
        rows = [_of_counts(counts[0], counts[1], rng)]
        return _as_shift(("all classes",), rows)
    if data.kind == "labels":
        rows = [_of_counts(_held(a), _held(b), rng) for a, b in zip(data.y.T, train.y.T, strict=True)]
        return _as_shift(names, rows)
    pairs = [(_finite(a), _finite(b)) for a, b in zip(data.y.T, train.y.T, strict=True)]
    return _as_shift(names, [_of_values(a, b) for a, b in pairs])


Row = tuple[float, float, float, float, float, float, float]


def _as_shift(names: tuple[str, ...], rows: list[Row]) -> LabelShift:
    n, m, statistic, p, distance, total, chance = (np.array(column) for column in zip(*rows, strict=True))
    whole = np.int64
    return LabelShift(names, n.astype(whole), m.astype(whole), statistic, p, distance, total, chance)


def _held(column: npt.NDArray[Any]) -> Integers:
    held = int((column > 0.5).sum())
    return np.array([len(column) - held, held])


def _of_counts(a: Integers, b: Integers, rng: np.random.Generator) -> Row:
    nan = float("nan")
    return float(a.sum()), float(b.sum()), nan, nan, nan, variation(a, b), variation_by_chance(a, b, rng)


def _of_values(a: Floats, b: Floats) -> Row:
    statistic, p = ks(a, b)
    spread = float(b.std()) if b.size else 0.0
    distance = wasserstein(a, b) / spread if spread > 0 else float("nan")
    return float(a.size), float(b.size), statistic, p, distance, float("nan"), float("nan")


# ---------------------------------------------------------------------- between groups


def cohorts(data: Split) -> Cohorts | None:
    """Each group of the first column against all others; None without groups."""
    if not data.columns:
        return None
    nan = float("nan")
    column, values = next(iter(data.columns.items()))
    found = Counter(values).most_common(_MOST_GROUPS)
    if len(found) < 2:
        return None
    member = np.array(values)
    level, std = (levels(data.x), moments(data.x)[1]) if data.x is not None else (None, None)
    rows = []
    for name, count in found:
        inside = member == name
        if count < FEW or len(data) - count < FEW:
            rows.append((nan, nan, nan, nan, ""))
        else:
            rows.append((*_targets_apart(data, inside), *_inputs_apart(data.channels, level, std, inside)))
    target, statistic, p, moved, where = zip(*rows, strict=True)
    sizes = np.array([count for _, count in found])
    return Cohorts(
        column=column,
        names=tuple(name for name, _ in found),
        samples=sizes,
        few=sizes < FEW,
        target_shift=np.array(target),
        target_ks=np.array(statistic),
        target_p=np.array(p),
        input_shift=np.array(moved),
        input_channel=where,
        explained=_explained(data, member),
    )


def _targets_apart(data: Split, inside: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    nan = float("nan")
    if data.y is None:
        return nan, nan, nan
    if data.kind in ("classes", "tokens"):
        classes = [_classes(data.y[inside]), _classes(data.y[~inside])]
        size = 1 + max((int(v.max()) for v in classes if v.size), default=0)
        return variation(*(np.bincount(c, minlength=size) for c in classes)), nan, nan
    best = (0.0, 0.0, 1.0)
    for column in data.y.T:
        ours, others = _finite(column[inside]), _finite(column[~inside])
        spread = float(_finite(column).std())
        if ours.size and others.size and spread > 0:
            statistic, p = ks(ours, others)
            best = max(best, (abs(float(ours.mean() - others.mean())) / spread, statistic, p))
    return best


def _inputs_apart(
    names: tuple[str, ...], level: Floats | None, std: Floats | None, inside: npt.NDArray[np.bool_]
) -> tuple[float, str]:
    if level is None or std is None:
        return float("nan"), ""
    ours, others = _column_means(level[inside]), _column_means(level[~inside])
    with np.errstate(all="ignore"):
        apart = np.abs(ours - others) / std
    apart[~np.isfinite(apart)] = -1.0
    worst = int(apart.argmax())
    return (float(apart[worst]), names[worst]) if apart[worst] >= 0 else (float("nan"), "")


def _column_means(values: Floats) -> Floats:
    fine = np.isfinite(values)
    with np.errstate(all="ignore"):
        means: Floats = np.where(fine, values, 0.0).sum(0) / fine.sum(0)
    return means


def _explained(data: Split, member: npt.NDArray[Any]) -> float:
    """ε²: share of the targets' variance between groups, corrected for their number (Kelley 1935).

    Targets of classes count as indicators.
    """
    y = indicators(data)
    if y is None:
        return float("nan")
    fine = np.isfinite(y).all(1)
    y, _, code = y[fine], *np.unique(member[fine], return_inverse=True)
    groups = int(code.max()) + 1 if code.size else 0
    total = float(np.square(y - y.mean(0)).sum()) if len(y) else 0.0
    if total <= 0 or len(y) <= groups or groups < 2:
        return float("nan")
    sums = np.zeros((groups, y.shape[1]))
    np.add.at(sums, code, y)
    means = sums / np.bincount(code)[:, None]
    within = float(np.square(y - means[code]).sum())
    return 1 - (within / (len(y) - groups)) / (total / (len(y) - 1))


def indicators(data: Split, most: int = 16) -> Floats | None:
    """Targets as numbers (n, K): classes as indicators of the commonest 16; None for tokens or without.

    Of more than 16 outputs, evenly spaced ones are taken.
    """
    if data.y is None or data.kind == "tokens":
        return None
    if data.kind == "classes":
        known = listed_classes(data, most)
        return np.stack([data.y == c for c in known], 1).astype(np.float64) if known else None
    return np.asarray(data.y[:, :: -(-data.y.shape[1] // most)], dtype=np.float64)


def listed_classes(data: Split, most: int = 16) -> list[int]:
    """The commonest classes, in the order of :func:`indicators`."""
    return [c for c, _ in Counter(data.y.tolist()).most_common(most) if c >= 0]
