"""Do inputs and targets belong together: a probe at every lag, the model at every lag, and against chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._data_labels import indicators
from torchwatch.examinations._data_probe import (
    LEAST,
    Features,
    correlation,
    halves,
    held_out,
)
from torchwatch.examinations._data_reading import Floats, Integers, Split
from torchwatch.results.data_quality import Alignment, LinearSkill, Order

LAGS = tuple(range(-5, 6))
_Z = 3.3
"""Standard errors that a better lag has to win by: one in a thousand, for the ten lags looked at."""
_LEAST_GAIN = 0.1
_SLOW = 0.3
"""Autocorrelation from which targets or inputs of neighbours stand for one another."""
_PERMUTATIONS = 20
_CLEAR = 2.6
"""Standard errors of a correlation: half a percent of all probes without a signal come so far."""
_DRAWS = 500
_WINDOWS = 0.05

Flags = npt.NDArray[np.bool_]
Adds = dict[int, tuple[Integers, Floats]]
"""By lag: samples, and what each adds to the correlation there."""


def order(split: Split, rng: np.random.Generator) -> Order:
    """Whether neighbours are alike."""
    first, second = split.pairs()
    y, x = indicators(split), _flat(split)
    nan = float("nan")
    enough = len(first) >= 10
    targets = _lag_one(y, first, second) if enough and y is not None else nan
    inputs = nan
    if enough and x is not None and x.shape[1] > 2:
        near = _mean_correlation(x, first, second)
        inputs = near - _mean_correlation(x, first, rng.permutation(second))
    return Order(split.name, len(first), targets, inputs)


def _flat(split: Split) -> Floats | None:
    """Up to 512 evenly spaced entries of each sample, standardised over the samples."""
    if split.x is None:
        return None
    flat = split.x.reshape(len(split), -1)
    flat = flat[:, :: -(-flat.shape[1] // 512) | 1].astype(np.float64)
    flat[~np.isfinite(flat)] = 0.0
    spread = flat.std(0)
    standard: Floats = (flat - flat.mean(0))[:, spread > 0] / spread[spread > 0]
    return standard


def _lag_one(y: Floats, first: Integers, second: Integers) -> float:
    fine = np.isfinite(y[first]).all(1) & np.isfinite(y[second]).all(1)
    if fine.sum() < 10:
        return float("nan")
    return correlation(y[first[fine]], y[second[fine]])


def _mean_correlation(x: Floats, first: Integers, second: Integers) -> float:
    a, b = x[first], x[second]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    kept = size > 0
    return float(((a * b).sum(1)[kept] / size[kept]).mean()) if kept.any() else float("nan")


# ---------------------------------------------------------------------- lags


def alignment(
    split: Split, found: Features, predicted: Floats | None, near: Order, windows: float
) -> Alignment | None:
    """The probe and the model at lags −5 … 5; None where there is too little to train on.

    Args:
        split: a split with targets.
        found: its features.
        predicted: the model's predictions as numbers (n, K), or None.
        near: how alike neighbours are.
        windows: share of neighbours that overlap.
    """
    y = indicators(split)
    if y is None or len(found.rows) < 2 * LEAST:
        return None
    half = halves(len(found.rows))
    probe, model, counts = [], [], []
    parts: dict[str, Adds] = {"probe": {}, "model": {}}
    for lag in LAGS:
        inputs, targets = _matched(split, y, lag, len(found.rows))
        counts.append(len(inputs))
        told = held_out(found, y[targets], inputs, half[inputs]) if len(inputs) >= LEAST else None
        seen = predicted[inputs] if predicted is not None else None
        probe.append(_of_part(told, y[targets], parts["probe"], lag, inputs))
        model.append(_of_part(seen, y[targets], parts["model"], lag, inputs))
    at = {"probe": np.array(probe), "model": np.array(model)}
    best, gain, low = _best(at, parts)
    excused = _excuse(near, windows) if low > 0 else ""
    shifted = low > 0 and gain >= _LEAST_GAIN and not excused
    lags, pairs = np.array(LAGS), np.array(counts)
    found_at = (lags, at["probe"], at["model"], pairs)
    return Alignment(split.name, *found_at, best, gain, low, shifted, excused)


def _matched(split: Split, y: Floats, lag: int, count: int) -> tuple[Integers, Integers]:
    """Samples with features, and those whose target belongs to them at a lag."""
    inputs, targets = split.pairs(lag)
    kept = (inputs < count) & np.isfinite(y[targets]).all(1)
    return inputs[kept], targets[kept]


def _of_part(told: Floats | None, wanted: Floats, kept: Adds, lag: int, rows: Integers) -> float:
    """Correlation; and what each sample adds to it, for the interval. NaN without predictions."""
    if told is None:
        return float("nan")
    finite = np.isfinite(told).all(1)
    told, wanted = told[finite], wanted[finite]
    value = correlation(told, wanted) if len(told) >= LEAST else float("nan")
    if np.isfinite(value):
        a, b = told - told.mean(0), wanted - wanted.mean(0)
        size = np.sqrt(np.square(a).sum() * np.square(b).sum())
        kept[lag] = rows[finite], (a * b).sum(1) / size * len(a)
    return value


def _best(at: dict[str, Floats], parts: dict[str, Adds]) -> tuple[int, float, float]:
    """The lag that wins most clearly over lag 0, by how much, and the lower end of that."""
    found = (0, 0.0, float("-inf"))
    for name, values in at.items():
        for lag, value in zip(LAGS, values.tolist(), strict=True):
            if lag == 0 or 0 not in parts[name] or lag not in parts[name]:
                continue
            base = max(0.0, float(values[LAGS.index(0)]))
            gain = value - base
            low = gain - _Z * _error(parts[name][lag], parts[name][0])
            if low > found[2]:
                found = (lag, gain, low)
    return found if np.isfinite(found[2]) else (0, 0.0, 0.0)


def _error(one: tuple[Integers, Floats], other: tuple[Integers, Floats]) -> float:
    """Standard error of the difference of two correlations over the samples that both have."""
    _, i, j = np.intersect1d(one[0], other[0], return_indices=True)
    if len(i) < LEAST:
        return float("inf")
    return float((one[1][i] - other[1][j]).std(ddof=1) / np.sqrt(len(i)))


def _excuse(near: Order, windows: float) -> str:
    """Why the target of a neighbour may rightly fit better."""
    if windows > _WINDOWS:
        return f"{windows:.0%} of neighbouring windows overlap, so each contains some of the other's targets"
    if near.targets >= _SLOW:
        return f"the targets of neighbours are alike (lag-1 autocorrelation {near.targets:.2f})"
    if near.inputs >= _SLOW:
        return f"the inputs of neighbours are alike (mean correlation {near.inputs:.2f})"
    return ""


# ---------------------------------------------------------------------- chance


def linear_skill(split: Split, found: Features, rng: np.random.Generator) -> LinearSkill | None:
    """What the probe can tell, held out, beside permuted targets; None where there is too little."""
    y = indicators(split)
    if y is None:
        return None
    rows = np.flatnonzero(np.isfinite(y[: len(found.rows)]).all(1))
    if len(rows) < 2 * LEAST or not (y[rows].std(0) > 0).any():
        return None
    wanted, half = y[rows], halves(len(rows))
    told = held_out(found, wanted, rows, half)
    chance = np.array(
        [_by_chance(found, wanted[rng.permutation(len(rows))], rows, half) for _ in range(_PERMUTATIONS)]
    )
    value = correlation(told, wanted)
    reached = int((chance >= value).sum())
    skill, low, high = _skill(told, wanted, half, rng)
    return LinearSkill(
        split=split.name,
        samples=len(rows),
        features=found.values.shape[1],
        skill=skill,
        low=low,
        high=high,
        correlation=value,
        permuted=float(np.quantile(chance, 0.95)),
        p=(1 + reached) / (1 + _PERMUTATIONS),
        beats_chance=reached == 0 and bool(value > _CLEAR / np.sqrt(len(rows))),
    )


def _by_chance(found: Features, wanted: Floats, rows: Integers, half: Flags) -> float:
    value = correlation(held_out(found, wanted, rows, half), wanted)
    return value if np.isfinite(value) else 0.0


def _skill(told: Floats, wanted: Floats, half: Flags, rng: np.random.Generator) -> tuple[float, float, float]:
    """1 − error over the error of the other half's mean, with its bootstrap interval over samples."""
    naive = np.where(half[:, None], wanted[~half].mean(0), wanted[half].mean(0))
    ours, theirs = np.square(wanted - told).sum(1), np.square(wanted - naive).sum(1)
    draws = rng.integers(len(ours), size=(_DRAWS, len(ours)))
    with np.errstate(all="ignore"):
        values = 1 - ours[draws].sum(1) / theirs[draws].sum(1)
        low, high = np.quantile(values, [0.025, 0.975])
    return float(1 - ours.sum() / theirs.sum()), float(low), float(high)
