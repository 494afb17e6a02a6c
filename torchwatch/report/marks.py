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
    rank = {"critical": 0, "warning": 1}
    for mark in sorted(marks, key=lambda m: (rank.get(m.severity, 2), m.step))[:_MOST_MARKS]:
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
    axes: Axes, steps: npt.NDArray[np.int64] | npt.NDArray[np.float64], theme: style.Theme, what: str
) -> None:
    """Crosses along the top for steps at which a number was NaN or infinite, thinned when there are many."""
    if not len(steps):
        return
    picked = steps[np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_BAD)).astype(int))]
    axes.plot(
        picked,
        np.full(len(picked), 0.97),
        "x",
        color=theme.critical,
        markersize=6,
        markeredgewidth=1.4,
        transform=axes.get_xaxis_transform(),
        label=f"{what} ({len(steps):,}×)",
    )
