"""Attention of right against wrong samples, of each class, and the heads that are worth a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._attention_numbers import CELLS, Tally, nanmean
from torchwatch.examinations.case import Case
from torchwatch.results.attention import (
    AttentionContrast,
    AttentionLayer,
    AttentionMap,
    ClassAttention,
    StreamPair,
)
from torchwatch.statistics.contrasts import contrast

Floats = npt.NDArray[np.float64]

_LEAST = 5
"""Fewer samples on a side are no comparison."""
_CLASSES = 40
_MAPS = 6


def contrasted(
    case: Case, layers: Sequence[AttentionLayer], pairs: Sequence[StreamPair], correct: Floats
) -> tuple[tuple[AttentionContrast, ...], tuple[tuple[str, int], ...]]:
    """Entropy, largest weight and alignment of right against wrong samples, and the names of the two sides.

    Without right and wrong (regression, tokens, labels), samples with an error below the median count as the
    better half.
    """
    names = ("correct", "incorrect")
    if case.targets is None:
        return (), ()
    right = correct
    if case.task.name not in ("binary", "multiclass"):
        names = ("smaller errors", "larger errors")
        error = case.errors(case.outputs).double().numpy()
        known = np.isfinite(error)
        middle = float(np.median(error[known])) if known.any() else 0.0
        right = np.where(known, error <= middle, np.nan)
    labels, values = _quantities(layers, pairs)
    usable = np.isfinite(values).sum(0) >= 2 * _LEAST
    labels = [x for x, use in zip(labels, usable, strict=True) if use]
    values = values[:, usable]
    fine = np.isfinite(right) & np.isfinite(values).all(1)
    left = right[fine] > 0
    sides = tuple(zip(names, (int(left.sum()), int((~left).sum())), strict=True))
    if not labels or min(count for _, count in sides) < _LEAST:
        return (), sides
    values = values[fine]
    found = contrast(values, left, case.rng("attention sides"))
    means = values[left].mean(0), values[~left].mean(0)
    rows = zip(labels, *means, found.effect, found.p, found.adjusted_p, strict=True)
    return tuple(AttentionContrast(*label, *map(float, rest)) for label, *rest in rows), sides


def _quantities(
    layers: Sequence[AttentionLayer], pairs: Sequence[StreamPair]
) -> tuple[list[tuple[str, str]], Floats]:
    """What is compared: (attention or pair, quantity), and its values (N, M)."""
    labels, columns = [], []
    for layer in layers:
        labels += [(layer.name, "entropy"), (layer.name, "max")]
        columns += [nanmean(layer.sample_entropy, 1), nanmean(layer.sample_most, 1)]
    for pair in pairs:
        labels.append((f"{pair.a} ↔ {pair.b}", "alignment"))
        columns.append(pair.alignment)
    return labels, np.stack(columns, 1)


def by_class(
    case: Case, layers: Sequence[AttentionLayer], pairs: Sequence[StreamPair], predicted: Floats
) -> tuple[ClassAttention, ...]:
    """Attention per true class (predicted class without targets), the largest 40 first."""
    if case.task.name not in ("binary", "multiclass"):
        return ()
    of = (
        predicted if case.targets is None else case.targets.reshape(len(predicted), -1)[:, 0].double().numpy()
    )
    counts = {c: int((of == c).sum()) for c in range(len(case.class_names))}
    chosen = sorted((c for c in counts if counts[c]), key=lambda c: (-counts[c], c))[:_CLASSES]

    def means(columns: list[Floats], rows: npt.NDArray[np.bool_]) -> Floats:
        return np.array([float(nanmean(c[rows].ravel(), 0)) for c in columns])

    return tuple(
        ClassAttention(
            case.class_names[c],
            counts[c],
            means([layer.sample_entropy for layer in layers], of == c),
            means([layer.sample_most for layer in layers], of == c),
            means([pair.alignment for pair in pairs], of == c),
        )
        for c in chosen
    )


def shown_maps(layers: Sequence[AttentionLayer], tallies: Mapping[str, Tally]) -> tuple[AttentionMap, ...]:
    """Six heads: those that contribute most, are most focused and most diffuse, each once."""
    heads = [(i, h) for i, layer in enumerate(layers) for h in range(len(layer.entropy))]
    entropy = np.array([layers[i].entropy[h] for i, h in heads])
    effect = np.array([layers[i].contribution[h] for i, h in heads])
    orders = (
        ("contributes most", np.argsort(-np.nan_to_num(effect, nan=-np.inf), kind="stable"), effect),
        ("most focused", np.argsort(np.nan_to_num(entropy, nan=np.inf), kind="stable"), entropy),
        ("most diffuse", np.argsort(-np.nan_to_num(entropy, nan=-np.inf), kind="stable"), entropy),
    )
    chosen: dict[int, str] = {}
    for rank in range(len(heads)):
        for why, order, value in orders:
            place = int(order[rank])
            if np.isfinite(value[place]) and place not in chosen and len(chosen) < _MAPS:
                chosen[place] = why
    maps = []
    whys = [why for why, _, _ in orders]
    for place, why in sorted(chosen.items(), key=lambda item: whys.index(item[1])):
        layer, head = layers[heads[place][0]], heads[place][1]
        weights = tallies[layer.name].maps()[head]
        widths = -(-layer.queries // CELLS), -(-layer.keys // CELLS)
        maps.append(AttentionMap(layer.name, head, why, weights, *widths))
    return tuple(maps)
