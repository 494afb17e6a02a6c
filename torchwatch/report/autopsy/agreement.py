"""Agreement: ablation against attribution, and attribution methods against one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing, _maps
from torchwatch.report.document import Block, Plot, Table, Text, shortened
from torchwatch.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.agreement import Agreement, AxisAgreement

_NAMED = 3
_PANELS = 4


def blocks(result: Agreement) -> list[Block]:
    """Correlations as a table, the scatter plots, and the methods among themselves."""
    head = ["axis", "compared", "rank correlation", "95 % interval", "ablation alone", "attribution alone"]
    rows = [
        [
            f"{a.axis} ({a.kind}s)",
            f"{a.tested:,} of {len(a.elements):,}",
            number(a.correlation) if math.isfinite(a.correlation) else "–",
            f"{number(a.interval[0])} … {number(a.interval[1])}" if math.isfinite(a.correlation) else "–",
            ", ".join(shortened(e, 30) for e in a.ablation_only) or "–",
            ", ".join(shortened(e, 30) for e in a.attribution_only) or "–",
        ]
        for a in result.axes
    ]
    words = (
        "Ablation asks what the error needs, attribution what the output depends on nearby. That "
        "explanations disagree is common and no failure; what both name is the safer finding."
    )
    return [
        Table(head, rows, numeric=frozenset({1, 2, 3})),
        Text(words, quiet=True),
        *(Plot(d.name) for d in DRAWINGS),
    ]


def _draw_scatter(result: Agreement, theme: Theme) -> Figure | None:
    """One panel per axis, a point per element that both know."""
    shown = [a for a in result.axes if a.tested >= 2][:_PANELS]
    if not shown:
        return None
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    drawn = style.figure(3.8 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axis, axes in zip(shown, grid.flat, strict=False):
        _scatter(axes, axis, theme)
        axes.set_xlabel(f"attribution, sum of |{result.method}|")
        axes.set_ylabel(f"ablation, change of the\n{result.metric}")
    return drawn


def _scatter(axes: Axes, axis: AxisAgreement, theme: Theme) -> None:
    axes.axhline(0, color=theme.ink, lw=0.8)
    both = np.isfinite(axis.ablation) & np.isfinite(axis.attribution)
    axes.plot(
        axis.attribution[both], axis.ablation[both], "o", color=theme.series[0], ms=4.5, alpha=0.75, mew=0
    )
    style.scale(axes, axis.attribution[both], axis="x")
    style.scale(axes, axis.ablation[both])
    middle = sum(axes.get_xlim()) / 2
    for order, i in enumerate(_worth_naming(axis, both)):
        place = (float(axis.attribution[i]), float(axis.ablation[i]))
        side = -1 if place[0] > middle else 1
        beside = (4 * side, -11 if order % 2 else 5)  # by turns, as neighbours in rank are neighbours here
        axes.annotate(
            style.label(axis.elements[i], 18), place, xytext=beside, textcoords="offset points",
            ha="right" if side < 0 else "left", fontsize=8, color=theme.ink,
        )  # fmt: skip
    words = f"{style.label(axis.axis)} ({axis.kind}s)"
    if math.isfinite(axis.correlation):
        words += f": rank correlation {axis.correlation:.2f}"
    axes.set_title(words)


def _worth_naming(axis: AxisAgreement, both: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """The top of either ranking, in the order of their sum of ranks."""
    known = np.nonzero(both)[0]
    by = [known[np.argsort(-v[known], kind="stable")] for v in (axis.ablation, axis.attribution)]
    return list(dict.fromkeys(int(i) for pair in zip(*by, strict=True) for i in pair))[:_NAMED]


def _caption_of_scatter(result: Agreement) -> str:
    words = "A point per element that both looked at; the most important are named."
    left = sum(len(a.elements) - a.tested for a in result.axes)
    return f"{words} {left:,} elements that were not tested are left out." if left else words


def _draw_methods(result: Agreement, theme: Theme) -> Figure | None:
    """Rank correlation of the methods' profiles."""
    count = len(result.methods)
    if count < 2 or not np.isfinite(result.between).any():
        return None
    drawn = style.figure(1.6 + 0.42 * count)
    axes = drawn.subplots()
    edges = np.arange(count + 1) - 0.5
    image = _maps.mesh(axes, edges, edges, result.between, theme, signed=True)
    image.set_clim(-1, 1)
    names = [style.label(m, 24) for m in result.methods]
    axes.set_xticks(np.arange(count), names, rotation=30, ha="right")
    axes.set_yticks(np.arange(count), names)
    for (row, column), value in np.ndenumerate(result.between):
        if math.isfinite(value):
            ink = "#ffffff" if abs(value) > 0.6 else "#1c2430"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    drawn.colorbar(image, ax=axes, shrink=0.9).set_label("rank correlation")
    return drawn


def _caption_of_methods(_: Agreement) -> str:
    return "Rank correlation of the profiles of the attribution methods, mean over the axes of the input."


DRAWINGS = (
    Drawing("agreement_scatter", "Ablation against attribution", _draw_scatter, _caption_of_scatter),
    Drawing("agreement_methods", "Attribution methods among themselves", _draw_methods, _caption_of_methods),
)
