"""Rows of points with intervals: one look for baselines, slices and groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchwatch.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

ROWS = 40
"""More rows than that are not readable: the worst are shown, and that is said."""

ROW_HEIGHT = 0.22


def height(rows: int) -> float:
    """Inches for a panel of so many rows, with its axis."""
    return 1.1 + ROW_HEIGHT * max(rows, 3)


def draw_dots(
    axes: Axes,
    names: Sequence[str],
    value: Floats,
    low: Floats,
    high: Floats,
    theme: style.Theme,
    *,
    colours: Sequence[str] | None = None,
    hollow: npt.NDArray[np.bool_] | None = None,
) -> None:
    """One row per name, the first at the top; no whiskers where an interval is NaN.

    Args:
        axes: where.
        names: of the rows (R).
        value: (R,).
        low: lower ends (R,).
        high: upper ends (R,).
        theme: colours.
        colours: of each row (default: the first of the theme).
        hollow: rows drawn as rings (R,).
    """
    rows = np.arange(len(names))
    tints = list(colours) if colours is not None else [theme.series[0]] * len(names)
    for i in rows:
        if np.isfinite(low[i]) and np.isfinite(high[i]):
            axes.plot([low[i], high[i]], [i, i], color=tints[i], lw=1.4, alpha=0.7, solid_capstyle="butt")
        face = theme.panel if hollow is not None and hollow[i] else tints[i]
        axes.plot([value[i]], [i], "o", mfc=face, mec=tints[i], ms=5)
    axes.set_yticks(rows, [style.label(n, 40) for n in names])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def reference(axes: Axes, at: float, words: str, theme: style.Theme) -> None:
    """A vertical line that values are compared with, named above the axes."""
    axes.axvline(at, color=theme.muted, lw=1.1, ls="--", label=words, zorder=1)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def cut_note(shown: int, total: int, what: str) -> str:
    """Said where not all rows are shown."""
    return f" The worst {shown:,} of {total:,} {what} are shown." if shown < total else ""


def finite(*arrays: Any) -> npt.NDArray[np.bool_]:
    """Where all arrays are finite."""
    fine: npt.NDArray[np.bool_] = np.all([np.isfinite(a) for a in arrays], axis=0)
    return fine


def binned(x: Floats, y: Floats, bins: int = 10, least: int = 5) -> tuple[Floats, Floats, Floats]:
    """Mean of x and of y in bins of equal count, and the half 95 % interval of the mean of y.

    Args:
        x: finite (N,).
        y: finite (N,).
        bins: at most so many, each of at least ``least`` points.
        least: see ``bins``.
    """
    order = np.argsort(x, kind="stable")
    parts = [p for p in np.array_split(order, max(1, min(bins, x.size // max(least, 1)))) if p.size >= 2]
    if not parts:
        return np.empty(0), np.empty(0), np.empty(0)
    half = [1.96 * y[p].std(ddof=1) / np.sqrt(p.size) for p in parts]
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts]), np.array(half)
