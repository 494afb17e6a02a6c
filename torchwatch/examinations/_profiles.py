"""Attributions summed up along the axes of the input, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchwatch.results.attributions import AttributionMap, AxisProfile, Convergence

_MOST_ROWS, _MOST_COLUMNS = 160, 256
"""Cells of a map; longer axes are binned."""
_TOLERATED = 0.05


class Tally:
    """Adds up the attributions of one method over chunks of samples.

    Args:
        axes: names of the axes of what is added.
        names_along: from an axis and its length to names of its elements.
    """

    def __init__(self, axes: tuple[str, ...], names_along: Callable[[str, int], Sequence[str]]) -> None:
        self._axes, self._names_along = axes, names_along
        self._per_axis: list[list[Tensor]] = [[] for _ in axes]
        self._signed: Tensor | None = None
        self._size: Tensor | None = None
        self._deltas: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._count = 0

    def add(self, maps: Tensor, delta: Tensor | None = None) -> None:
        """Attributions of some samples (n, …) in the input's axes, and their convergence deltas (n,)."""
        maps = maps.detach().double().cpu()
        size = maps.abs()
        for axis, kept in enumerate(self._per_axis, 1):
            others = [i for i in range(1, maps.ndim) if i != axis]
            kept.append(size.sum(others) if others else size)
        self._signed = maps.sum(0) + (0 if self._signed is None else self._signed)
        self._size = size.sum(0) + (0 if self._size is None else self._size)
        self._count += len(maps)
        if delta is not None:
            delta = delta.detach().double().cpu()
            self._deltas.append(delta)
            self._changes.append(maps.reshape(len(maps), -1).sum(1) - delta)

    @property
    def finite(self) -> bool:
        """Whether all sums are finite."""
        return self._size is not None and bool(torch.isfinite(self._size).all())

    def profiles(self) -> tuple[AxisProfile, ...]:
        """One profile for each axis."""
        return tuple(
            profile_of(name, tuple(self._names_along(name, kept[0].shape[1])), torch.cat(kept).numpy())
            for name, kept in zip(self._axes, self._per_axis, strict=True)
        )

    def convergence(self) -> Convergence | None:
        """How well attributions add up; None where no deltas came."""
        if not self._deltas:
            return None
        delta, change = torch.cat(self._deltas).abs(), torch.cat(self._changes).abs()
        total = float(change.mean())
        return Convergence(
            delta=float(delta.mean()),
            change=total,
            ratio=float(delta.mean()) / total if total > 0 else math.nan,
            beyond=float((delta > _TOLERATED * change).double().mean()),
        )

    def overview(self) -> AttributionMap:
        """The mean map over the last two axes, time to the right; of one axis a map of one row."""
        signed, size, names = self._signed, self._size, self._axes
        if signed is None or size is None:
            raise ValueError("nothing was added")
        if signed.ndim == 1:
            signed, size, names = signed[None], size[None], ("", *names)
        rows, columns = len(names) - 2, len(names) - 1
        if names[rows] == "time" and len(names) == 2:
            rows, columns = columns, rows  # time runs to the right
        row_edges = _edges(signed.shape[rows], _MOST_ROWS)
        column_edges = _edges(signed.shape[columns], _MOST_COLUMNS)

        def cells(total: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
            flat = (total / self._count).movedim((rows, columns), (0, 1))
            flat = flat.reshape(*flat.shape[:2], -1).sum(-1)
            by_rows = np.add.reduceat(flat.numpy(), row_edges[:-1], axis=0)
            return _rounded(np.add.reduceat(by_rows, column_edges[:-1], axis=1))

        return AttributionMap(
            names[rows], names[columns], row_edges, column_edges, cells(signed), cells(size)
        )


def profile_of(
    axis: str, elements: tuple[str, ...], each: np.ndarray[Any, np.dtype[np.float64]]
) -> AxisProfile:
    """A profile from the sums of each sample (samples, elements)."""
    importance = each.mean(0)
    count = len(each)
    error = each.std(0, ddof=1) / math.sqrt(count) if count > 1 else np.full_like(importance, math.nan)
    order = np.argsort(-importance, kind="stable")
    return AxisProfile(axis, elements, importance, error, tuple(int(i) for i in order))


def _rounded(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """To a millionth of the largest value: more digits of a map are nothing but bytes of the report."""
    most = float(np.abs(values).max(initial=0.0))
    return np.round(values, 5 - math.floor(math.log10(most))) if 0 < most < math.inf else values


def _edges(length: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    cells = min(length, most)
    return np.unique(np.linspace(0, length, cells + 1).round().astype(np.int64))
