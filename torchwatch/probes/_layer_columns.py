"""What the activation probe hands to the recorder, and how that becomes columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from torchwatch.probe import Frame, Slot, Values
from torchwatch.probes._moments import MOMENTS
from torchwatch.probes._pooled import Calls, pooled
from torchwatch.probes._rare import described
from torchwatch.probes._units import Key
from torchwatch.records import Column, is_missing, missing_column


@dataclass(frozen=True, slots=True)
class TakenCalls:
    """Calls that were trained on: (layer, entries, samples, limit of a low-precision type or NaN) of each.

    ``moments`` are numbers, or the slot of a tensor (calls, moments).
    """

    calls: list[tuple[int, int, int, float]]
    moments: list[list[float]] | Slot


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of outputs: (layer, entries) of each, and Σg² as numbers or the slot of a tensor."""

    entries: list[tuple[int, int]]
    squares: list[float] | Slot


@dataclass(frozen=True, slots=True)
class UnitShares:
    """Shares of dead and of dormant units per key: the slot of a tensor (2, keys)."""

    keys: list[Key]
    values: Slot


@dataclass(frozen=True, slots=True)
class Grams:
    """Gram matrices of one pass in call order: (layer, samples in the batch) of each, and its slot."""

    calls: list[tuple[int, int]]
    slots: list[Slot]


Payload = TakenCalls | Gradients | UnitShares | Grams
Item = TypeVar("Item")


def by_place(items: list[Item], value: Callable[[Item], object]) -> list[list[Item]]:
    """The items by where their value is: on the host as numbers, or on which device."""
    places: dict[object, list[Item]] = {}
    for item in items:
        found = value(item)
        places.setdefault(found.device if isinstance(found, torch.Tensor) else None, []).append(item)
    return list(places.values())


def handed_over(frame: Frame, found: list[Any]) -> Any:
    """Numbers as they are; tensors of one place stacked and deferred."""
    return frame.defer(torch.stack(found)) if isinstance(found[0], torch.Tensor) else found


def columns(payloads: Sequence[Payload], values: list[Values], width: int) -> dict[str, Column]:
    """Columns of ``width`` layers by statistic; most of those of which nothing was measured are left out.

    Recorder thread only.
    """
    found: dict[str, Column] = {}
    calls = [p for p in payloads if isinstance(p, TakenCalls)]
    if calls:
        found |= _of_calls(calls, values, width)
    found |= _of_units([p for p in payloads if isinstance(p, UnitShares)], values, width)
    gradients = [p for p in payloads if isinstance(p, Gradients)]
    if gradients:
        found["grad_rms"] = _of_gradients(gradients, values, width)
    for grams in payloads:
        if isinstance(grams, Grams):
            found |= _of_grams(grams, values, width)
    return found


def unscaled(found: dict[str, Column], scale: float | None) -> dict[str, Column]:
    """The columns with the factor of the loss taken out of the gradients."""
    if not scale or "grad_rms" not in found:
        return found
    column = found["grad_rms"].copy()
    column[~is_missing(column)] /= np.float32(scale)
    return found | {"grad_rms": column}


def _of_calls(taken: list[TakenCalls], values: list[Values], width: int) -> dict[str, Column]:
    tables = [
        values[t.moments].reshape(-1, len(MOMENTS)) if isinstance(t.moments, int) else np.array(t.moments)
        for t in taken
    ]
    layers, counts, samples, limits = np.array([call for t in taken for call in t.calls], np.float64).T
    calls = Calls(layers.astype(np.int64), counts, samples, limits, np.concatenate(tables))
    return pooled(calls, width)


def _of_gradients(taken: list[Gradients], values: list[Values], width: int) -> Column:
    squares = np.concatenate([values[t.squares] if isinstance(t.squares, int) else t.squares for t in taken])
    layers, counts = np.array([entry for t in taken for entry in t.entries]).T
    total = np.bincount(layers, counts, width)
    column = missing_column(width)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        rms = np.sqrt(np.bincount(layers, squares, width) / total)
        column[total > 0] = rms[total > 0]
    return column


def _of_units(taken: list[UnitShares], values: list[Values], width: int) -> dict[str, Column]:
    """A module with several widths has the share among all of its units; the newest merge counts."""
    found = {"dead_fraction": missing_column(width)}
    if not taken:
        return found
    found["dormant_fraction"] = missing_column(width)
    for shares in taken:
        layers, units = np.array(shares.keys).T
        total = np.bincount(layers, units, width)
        there = total > 0
        for column, share in zip(found.values(), values[shares.values].reshape(2, -1), strict=True):
            summed = np.bincount(layers, share * units, width)
            column[there] = summed[there] / total[there]
    return found


def _of_grams(grams: Grams, values: list[Values], width: int) -> dict[str, Column]:
    """Statistics that are defined for no layer are left out."""
    matrices = []
    for (_, samples), slot in zip(grams.calls, grams.slots, strict=True):
        flat = values[slot]
        side = math.isqrt(flat.size)
        matrices.append((samples, flat.reshape(side, side)))
    found: dict[str, Column] = {}
    for (layer, _), geometry in zip(grams.calls, described(matrices), strict=True):
        for name, value in geometry._asdict().items():
            if value is not None:
                found.setdefault(name, missing_column(width))[layer] = value
    return found
