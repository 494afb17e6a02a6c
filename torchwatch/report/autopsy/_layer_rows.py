"""Layers as rows of a picture: which are shown, their names, points on a scale that keeps zeros visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 40

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


def worst(badness: Floats, most: int = MOST_ROWS) -> Rows:
    """The rows with the largest badness in their own order; NaN counts as harmless."""
    if len(badness) <= most:
        return np.arange(len(badness))
    return np.sort(np.argsort(-np.where(np.isnan(badness), -np.inf, badness), kind="stable")[:most])


def cut_note(shown: int, total: int) -> str:
    """Says how many of how many are shown; empty where all are."""
    return f" The worst {shown} of {total:,} are shown." if shown < total else ""


def height(rows: int) -> float:
    """Of a picture with so many rows (inches)."""
    return 1.5 + 0.21 * max(rows, 4)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Full names at the rows, the first at the top."""
    axes.set_yticks(np.arange(len(names)), [style.label(n) for n in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def points(axes: Axes, values: Floats, colours: Sequence[str], spread: Floats | None = None) -> None:
    """A point per row, with a bar of ± ``spread``; rows without a value have none."""
    rows = np.arange(len(values))
    for row, value, colour in zip(rows, values, colours, strict=True):
        if not np.isfinite(value):
            continue
        if spread is not None and np.isfinite(spread[row]):
            axes.plot(
                [max(0.0, value - spread[row]), value + spread[row]],
                [row, row],
                "-",
                color=colour,
                lw=1.4,
                alpha=0.6,
            )
        axes.plot([value], [row], "o", color=colour, ms=5)


def share_axis(axes: Axes, title: str) -> None:
    """An x axis from 0 to 1."""
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel(title)
