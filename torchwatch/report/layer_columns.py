"""Columns of a run, one number per layer, thinned while they arrive.

A layer keeps its row when the layout changes. Of many observations every second, fourth, eighth … is kept;
the others are only looked through for NaN and infinities, which are never lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.records import Column, Layout, Step, StepColumns, is_bad
from torchwatch.report.trace import Floats, LayerMap, layer_map

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_SEEN = 1024
"""Most observations of a column that are kept."""

Flags = npt.NDArray[np.bool_]


class LayerColumns:
    """Gradients, updates, dead and zero fractions of all layers over the steps."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._called: dict[str, int | None] = {}
        self._shape = _Shape(Layout(), self._rows)
        self._seen: dict[str, _Seen] = {}

    def use(self, layout: Layout) -> None:
        """From now on columns refer to this layout."""
        self._shape = _Shape(layout, self._rows)
        self._called |= {x.name: x.order for x in layout.layers}

    def take(self, step: int, columns: Step | StepColumns) -> None:
        """Take in the columns of one step."""
        shape, activations = self._shape, columns.activations or {}
        self._see("gradients", step, columns.grad_norms, shape.owner, shape.gradient_rms)
        self._see("updates", step, columns.update_ratios, shape.owner, shape.largest)
        self._see("dead", step, activations.get("dead_fraction"), shape.layers, shape.per_layer)
        self._see("zero", step, activations.get("zero_fraction"), shape.layers, shape.per_layer)

    def names(self) -> tuple[str, ...]:
        """All layers, as the first forward pass called them; those never called come last."""
        names = list(self._rows)
        return tuple(names[i] for i in self._order())

    def maps(self, last_step: int) -> dict[str, LayerMap]:
        """What was seen, by kind, rows in the order of :meth:`names`."""
        names, order = self.names(), self._order()
        found = {kind: seen.layers(names, order, last_step) for kind, seen in self._seen.items()}
        return {kind: layers for kind, layers in found.items() if layers is not None}

    def _order(self) -> list[int]:
        ranks = [self._called.get(name) for name in self._rows]
        return sorted(range(len(ranks)), key=lambda i: (ranks[i] is None, ranks[i] or 0, i))

    def _see(
        self,
        kind: str,
        step: int,
        column: Column | None,
        owner: npt.NDArray[np.int64],
        per_layer: Callable[[Column], Floats],
    ) -> None:
        # A column of another width belongs to a layout that was lost; guessing would name wrong layers.
        if column is None or not self._shape.whole or len(column) != len(owner):
            return
        seen = self._seen.setdefault(kind, _Seen())
        bad = None if np.isfinite(column).all() else self._shape.flags(owner, is_bad(column))
        if seen.due():
            seen.keep(step, per_layer(column), bad if bad is not None else np.zeros(self._shape.width, bool))
        elif bad is not None:
            seen.mark(bad)


class _Seen:
    """Observations of one number per layer."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._values: list[Floats] = []
        self._bad: list[Flags] = []
        self._stride = 1
        self._waiting = 0

    def due(self) -> bool:
        """Whether the observation at hand is one to keep."""
        self._waiting += 1
        return self._waiting >= self._stride or not self._steps

    def keep(self, step: int, values: Floats, bad: Flags) -> None:
        self._waiting = 0
        self._steps.append(step)
        self._values.append(values)
        self._bad.append(bad)
        if len(self._steps) >= MOST_SEEN:
            self._stride *= 2
            self._bad = [_either(a, b) for a, b in zip(self._bad[::2], self._bad[1::2], strict=True)]
            self._steps, self._values = self._steps[::2], self._values[::2]

    def mark(self, bad: Flags) -> None:
        """Remember the bad entries of an observation that is not kept."""
        self._bad[-1] = _either(self._bad[-1], bad)

    def layers(self, names: tuple[str, ...], order: list[int], last_step: int) -> LayerMap | None:
        """The map of all observations, rows in the given order."""
        width = len(names)
        values = np.array([_wide(v, width) for v in self._values]).reshape(-1, width)[:, order]
        bad = np.array([_wide(b.astype(float), width) for b in self._bad]).reshape(-1, width)[:, order] == 1.0
        return layer_map(names, np.array(self._steps, np.int64), values, bad, last_step)


def _wide(values: Floats, width: int) -> Floats:
    out = np.full(width, np.nan)
    out[: len(values)] = values
    return out


def _either(a: Flags, b: Flags) -> Flags:
    wide, narrow = (a, b) if len(a) >= len(b) else (b, a)
    out = wide.copy()
    out[: len(narrow)] |= narrow
    return out


class _Shape:
    """How the columns of a layout become one number per layer.

    ``owner`` is the row of each parameter, ``layers`` that of each layer; ``whole`` is False where a
    parameter names no layer of the layout.
    """

    def __init__(self, layout: Layout, rows: dict[str, int]) -> None:
        self.layers = np.array([rows.setdefault(x.name, len(rows)) for x in layout.layers], np.int64)
        self.width = len(rows)
        usable = [p for p in layout.parameters if 0 <= p.layer < len(layout.layers)]
        self.whole = len(usable) == len(layout.parameters)
        self.owner = np.array([self.layers[p.layer] for p in usable], np.int64)
        self._sizes = np.array([max(1.0, float(np.prod(p.shape, dtype=float))) for p in usable], np.float64)

    def gradient_rms(self, norms: Column) -> Floats:
        """Root mean square of all gradients of a layer: √(Σ‖g‖² / Σn)."""
        good = np.isfinite(norms)
        # float64: the square of a float32 norm may overflow float32
        squares = np.bincount(self.owner[good], norms[good].astype(np.float64) ** 2, minlength=self.width)
        counts = np.bincount(self.owner[good], self._sizes[good], minlength=self.width)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, np.sqrt(squares / counts), np.nan)

    def largest(self, ratios: Column) -> Floats:
        """The value of each layer's largest parameter; biases start near zero and their ratios say little."""
        values, biggest = np.full(self.width, np.nan), np.zeros(self.width)
        for i in np.flatnonzero(np.isfinite(ratios)):
            if self._sizes[i] > biggest[self.owner[i]]:
                values[self.owner[i]], biggest[self.owner[i]] = ratios[i], self._sizes[i]
        return values

    def per_layer(self, column: Column) -> Floats:
        """A column that already has one entry per layer."""
        values = np.full(self.width, np.nan)
        finite = np.isfinite(column)
        values[self.layers[finite]] = column[finite]
        return values

    def flags(self, owner: npt.NDArray[np.int64], bad: Flags) -> Flags:
        """The rows that a bad entry belongs to."""
        flags = np.zeros(self.width, bool)
        flags[owner[bad]] = True
        return flags
