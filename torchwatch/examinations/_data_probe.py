"""A cheap linear probe: what a simple model can tell of the targets, held out.

Inputs are averaged along time and space into few bins, standardised, and joined by the logarithm of each
channel's spread. Three ways to fit them compete inside the training half: ridge regression on the first 200
principal components, and on the 20 or 80 features that correlate most with the targets, which finds a signal
in few of many channels. All are closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.examinations._data_reading import Floats, Integers, Split

COMPONENTS = 200
_PICKS = (20, 80)
_RIDGES = 10.0 ** np.arange(-3, 6)
_BINS = 20
_MOST_FEATURES = 4_096
_MOST_SAMPLES = 2_000
_MOST_TOKENS = 500
_FOLDS = 3
Parts = tuple[Floats, Floats, Floats]
LEAST = 40
"""With fewer samples, halves are too small to train on."""


@dataclass(frozen=True)
class Features:
    """Features of the samples.

    Attributes:
        rows: places of the samples in their split (n,), in order.
        values: standardised features (n, F).
        scores: first principal components, standardised by the largest (n, P).
    """

    rows: Integers
    values: Floats
    scores: Floats
    known: dict[bytes, Parts] = field(default_factory=dict)
    """Decompositions of the components, by the rows that were fitted: permuted targets need them again."""


def features(split: Split) -> Features:
    """Features of up to 2,000 samples: the first in the order of the split, so that neighbours stay."""
    rows = np.arange(min(len(split), _MOST_SAMPLES))
    values = _counted(split.ids[rows]) if split.ids is not None else _averaged(split, len(rows))
    others = [
        t[: len(rows)].reshape(len(rows), -1)[:, :_MOST_FEATURES].float().numpy()
        for k, t in split.samples.inputs.items()
        if k != split.main and t.is_floating_point()
    ]
    joined = np.concatenate([values, *others], 1).astype(np.float64)
    joined[~np.isfinite(joined)] = np.nan
    standard = _standardised(joined)
    return Features(rows, standard, _components(standard))


def _averaged(split: Split, count: int) -> npt.NDArray[Any]:
    """Means of each channel over bins of time or space, and the logarithm of its spread."""
    assert split.x is not None
    x = torch.from_numpy(split.x[:count])
    most = max(1, _MOST_FEATURES // x.shape[1])
    if x.shape[1] > _MOST_FEATURES:
        x = x[:, :: -(-x.shape[1] // _MOST_FEATURES)]
    shape = [n for _, n in split.rest]
    if not shape or x.shape[2] <= min(_BINS, most):
        return x.reshape(count, -1).numpy()
    side = _BINS if len(shape) == 1 else max(1, round(min(most, 256) ** (1 / len(shape))))
    wanted = [min(n, side, most) for n in shape]
    pooled = _pool(x.reshape(count, x.shape[1], *shape), wanted).reshape(count, -1)
    spread = (x.std(2) + 1e-12).log()
    return torch.cat([pooled, spread], 1).numpy()


def _pool(x: torch.Tensor, wanted: list[int]) -> torch.Tensor:
    if x.ndim == 3:
        return torch.nn.functional.adaptive_avg_pool1d(x, wanted[0])
    if x.ndim == 4:
        return torch.nn.functional.adaptive_avg_pool2d(x, (wanted[0], wanted[1]))
    if x.ndim == 5:
        return torch.nn.functional.adaptive_avg_pool3d(x, (wanted[0], wanted[1], wanted[2]))
    return torch.nn.functional.adaptive_avg_pool1d(x.flatten(2), min(_BINS, x[0, 0].numel()))


def _counted(ids: Integers) -> npt.NDArray[Any]:
    """How often each of the commonest ids occurs in a sample, and which id is where in short samples."""
    values, count = np.unique(ids, return_counts=True)
    common = values[np.argsort(-count, kind="stable")[:_MOST_TOKENS]]
    bags = np.stack([(ids == value).sum(1) for value in common], 1).astype(np.float64)
    return np.concatenate([bags, ids], 1) if ids.shape[1] <= _BINS else bags


def _standardised(values: Floats) -> Floats:
    with np.errstate(all="ignore"):
        fine = np.isfinite(values)
        mean = np.where(fine, values, 0.0).sum(0) / np.maximum(1, fine.sum(0))
        centred = np.where(fine, values - mean, 0.0)
        spread = np.sqrt(np.square(centred).mean(0))
        size = np.abs(mean) + spread
    kept = spread > 1e-9 * size
    standard: Floats = centred[:, kept] / spread[kept]
    return standard


def _components(values: Floats) -> Floats:
    """Scores of the first principal components, from the smaller of the two Gram matrices."""
    if not values.size:
        return np.empty((len(values), 0))
    if values.shape[1] <= len(values):
        _, vectors = np.linalg.eigh(values.T @ values)
        scores = values @ vectors[:, ::-1][:, :COMPONENTS]
    else:
        squares, vectors = np.linalg.eigh(values @ values.T)
        scores = (vectors * np.sqrt(np.maximum(squares, 0)))[:, ::-1][:, :COMPONENTS]
    largest = float(scores.std(0).max(initial=0.0)) or 1.0
    return np.asarray(scores / largest)


# ---------------------------------------------------------------------- fits


def held_out(found: Features, y: Floats, rows: Integers, halves: npt.NDArray[np.bool_]) -> Floats:
    """Predictions of one half by a probe trained on the other, both ways.

    Args:
        found: the features.
        y: wanted (n, K), finite.
        rows: places in the features of the n samples.
        halves: which half each of the n samples is in.

    Returns:
        (n, K), in the unit of y.
    """
    predicted = np.empty_like(y)
    ways = [0, *(p for p in _PICKS if p < found.values.shape[1])]
    for half in (True, False):
        fit, test = np.flatnonzero(halves != half), np.flatnonzero(halves == half)
        errors = np.zeros(len(ways))
        fold = np.arange(len(fit)) * _FOLDS // max(1, len(fit))
        for number in range(_FOLDS if len(ways) > 1 else 0):
            left_out = fit[fold == number]
            told = _fitted(found, y, rows, fit[fold != number], left_out, ways)
            errors += [np.square(y[left_out] - t).sum() for t in told]
        predicted[test] = _fitted(found, y, rows, fit, test, [ways[int(errors.argmin())]])[0]
    return predicted


def _fitted(
    found: Features, y: Floats, rows: Integers, fit: Integers, test: Integers, ways: list[int]
) -> list[Floats]:
    """Predictions by each way: 0 is all components, another number so many features."""
    center = y[fit].mean(0)
    wanted = y[fit] - center
    told = []
    if any(ways):
        spread = np.zeros((len(found.values), y.shape[1]))
        spread[rows[fit]] = wanted
        order = np.argsort(-np.abs(found.values.T @ spread).max(1), kind="stable")
    for way in ways:
        source = found.values[:, order[:way]] if way else found.scores
        if not source.shape[1] or len(fit) < 2:
            told.append(np.broadcast_to(center, (len(test), y.shape[1])))
            continue
        parts, key = None, rows[fit].tobytes()
        if not way:
            parts = found.known.get(key) or decomposed(source[rows[fit]])
            found.known[key] = parts
        told.append(center + ridge(source[rows[fit]], wanted, source[rows[test]], parts))
    return told


def decomposed(a: Floats) -> Parts:
    """Means of the columns (P,), squares of the singular values (P,) and right singular vectors (P, P)."""
    middle = a.mean(0)
    squares, axes = np.linalg.eigh((a - middle).T @ (a - middle))
    return middle, np.maximum(squares, 0.0), axes


def ridge(a: Floats, y: Floats, b: Floats, parts: Parts | None = None) -> Floats:
    """Ridge regression of y on a, applied to b; its strength by generalised cross-validation, per column.

    Golub, Heath & Wahba, Technometrics 21 (1979): the λ that makes n ‖y − Hy‖² / (n − tr H)² least, with the
    mean counted as a parameter.

    Args:
        a: (n, P).
        y: centred (n, K).
        b: (m, P).
        parts: :func:`decomposed` of a, where it is known.

    Returns:
        Predictions (m, K).
    """
    middle, squares, axes = parts or decomposed(a)
    turned = axes.T @ ((a - middle).T @ y)
    total = np.square(y).sum(0)
    scale = float(squares.mean()) or 1.0
    scores, weights = [], []
    for strength in _RIDGES * scale:
        inverse = 1 / (squares + strength)
        explained = ((2 * inverse - squares * inverse**2)[:, None] * turned**2).sum(0)
        freedom = max(1.0, len(a) - 1 - float((squares * inverse).sum()))
        scores.append((total - explained) / freedom**2)
        weights.append(inverse[:, None] * turned)
    best = np.argmin(scores, 0)
    chosen = np.stack([weights[k][:, i] for i, k in enumerate(best)], 1)
    return np.asarray((b - middle) @ (axes @ chosen))


def halves(count: int) -> npt.NDArray[np.bool_]:
    """Blocks of ten samples in turn: neighbours together, and in both halves all classes of sorted data."""
    blocks = max(16, count // 10)
    return np.asarray((np.arange(count) * blocks // count) % 2 == 1)


def correlation(a: Floats, b: Floats) -> float:
    """Of all columns together, each centred; NaN where one side is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum() / size) if size > 0 else float("nan")
