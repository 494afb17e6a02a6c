"""Marks on step axes: where incidents began and where a number was NaN or infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from torchwatch.report import style
from torchwatch.report.severity import rank

_MOST_MARKS = 30
_MOST_BAD = 200


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an incident began: its number in the report, its step, its severity and its root's category."""

    number: int
    step: int
    severity: str
    category: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """An issue's life.

    ``since`` is its onset, ``until`` the last step at which it was found before it resolved (None: the end).
    """

    check: str
    severity: str
    since: int
    until: int | None


def draw_incidents(axes: Axes, marks: Sequence[Mark], theme: style.Theme) -> None:
    """A dashed line with its number at the top for each incident, the worst ones if there are very many."""
    for mark in sorted(marks, key=lambda m: (-rank(m.severity), m.step))[:_MOST_MARKS]:
        colour = theme.severity(mark.severity)
        axes.axvline(mark.step, color=colour, linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.9)
        axes.annotate(
            str(mark.number),
            (mark.step, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7.5,
            fontweight="bold",
            color=theme.panel,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": colour, "edgecolor": "none"},
        )


def draw_bad(
    axes: Axes,
    steps: npt.NDArray[np.int64] | npt.NDArray[np.float64],
    theme: style.Theme,
    what: str,
) -> None:
    """Shade the stretches in which a number was NaN or infinite, with a cross at the foot where each begins.

    Args:
        axes: with steps on x.
        steps: rising steps at which the number was bad.
        theme: its critical colour is used.
        what: for the legend; the count is added.
    """
    if not len(steps):
        return
    starts = np.flatnonzero(np.diff(steps, prepend=-np.inf) > 1)
    ends = np.append(starts[1:] - 1, len(steps) - 1)
    picked = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), _MOST_BAD)).astype(int))
    first, last = np.asarray(steps[starts[picked]], float), np.asarray(steps[ends[picked]], float)
    for a, b in zip(first, last, strict=True):
        axes.axvspan(a, b, color=theme.critical, alpha=0.13, linewidth=0)
    axes.plot(
        first,
        np.full(len(first), 0.04),
        "x",
        color=theme.critical,
        markersize=6,
        markeredgewidth=1.5,
        transform=axes.get_xaxis_transform(),
        label=f"{what} ({len(steps):,}×)",
    )
