"""Failures: the worst samples, and the error by slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Bullets, Fold, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.results.failures import Failure, Failures, Slices

_SHOWN = 10
_PANELS = 6
_SLICES = 12
_SURE = 0.01
_COLUMNS = 4


def blocks(result: Failures) -> list[Block]:
    """Overall error, slices, then the worst samples."""
    overall = (
        f"Mean {result.error_name} {number(result.mean_error)}, median {number(result.median_error)} over "
        f"{result.samples:,} samples; the worst 5 % of them make {percent(result.share_of_worst)} of the sum."
    )
    found: list[Block] = [Text(overall), *(Plot(d.name) for d in DRAWINGS)]
    if result.not_sliced:
        left = [(shortened(name), reason) for name, reason in result.not_sliced.items()]
        found.append(Fold("Columns that were not sliced", [Bullets(left)]))
    if result.worst:
        found.append(Text(f"The worst {min(_SHOWN, len(result.worst))} samples:"))
        found.append(_table(result.worst[:_SHOWN]))
        rest = result.worst[_SHOWN:]
        if rest:
            found.append(Fold(f"The next {len(rest)}", [_table(rest)]))
    return found


def _table(worst: tuple[Failure, ...]) -> Table:
    """Index, error, prediction, target, and what is known of each."""
    columns = list(worst[0].metadata)[:_COLUMNS]
    confident = any(np.isfinite(f.confidence) for f in worst)
    grouped = any(f.group is not None for f in worst)
    head = ["sample", "error", "prediction", "target"]
    head += ["confidence"] * confident + ["group"] * grouped + [shortened(c, 40) for c in columns]
    rows = []
    for f in worst:
        row = [f"{f.index:,}", number(f.error), _values(f.prediction), _values(f.target)]
        row += [percent(f.confidence)] * confident + [_word(f.group)] * grouped
        rows.append(row + [_word(f.metadata.get(c)) for c in columns])
    return Table(head, rows, numeric=frozenset({0, 1}))


def _values(values: tuple[Any, ...]) -> str:
    shown = ", ".join(_word(v) for v in values[:4])
    return f"{shown}, …" if len(values) > 4 else shown


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else shortened(str(value), 60)


# ---------------------------------------------------------------------- slices


def _chosen(result: Failures) -> list[Slices]:
    """Columns that are drawn: the predicted values first, then those that stand out most."""
    return sorted(result.slices, key=lambda s: (s.kind == "metadata", float(s.p.min(initial=1.0))))[:_PANELS]


def _rows(each: Slices) -> Any:
    """Slices that are drawn, in their order; of many those with the largest errors."""
    filled = np.flatnonzero(each.count > 0)
    if filled.size <= _SLICES:
        return filled
    return filled[np.argsort(-each.error[filled], kind="stable")[:_SLICES]]


def _draw(result: Failures, theme: style.Theme) -> Figure | None:
    """One panel per column, two beside each other."""
    chosen = [s for s in _chosen(result) if (s.count > 0).sum() > 1]
    if not chosen:
        return None
    across = min(2, len(chosen))
    down = -(-len(chosen) // across)
    sizes = [dots.height(len(_rows(s))) for s in chosen]
    heights = [max(sizes[i * across : (i + 1) * across]) for i in range(down)]
    drawn = style.figure(sum(heights))
    grid = drawn.subplots(down, across, squeeze=False, height_ratios=heights).ravel()
    for axes, each in zip(grid, chosen, strict=False):
        rows = _rows(each)
        colours = [theme.critical if each.p[i] < _SURE else theme.series[0] for i in rows]
        names = [f"{style.label(each.names[i], 32)} ({each.count[i]:,})" for i in rows]
        dots.draw_dots(
            axes, names, each.error[rows], each.error_low[rows], each.error_high[rows], theme, colours=colours
        )
        style.scale(axes, each.error[rows], axis="x")
        axes.set_title(style.label(each.column, 50))
        axes.set_xlabel(f"mean {result.error_name}")
        dots.reference(axes, result.mean_error, "all samples", theme)
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    return drawn


def _caption(result: Failures) -> str:
    words = (
        "Mean error of each slice with its 95 % interval and its number of samples. Red: larger than chance "
        "gives (p < 0.01, corrected for the slices of its column). There are no slices by target, because "
        "given the target every model of a weak signal errs upwards at low and downwards at high targets."
    )
    left = len(result.slices) - len(_chosen(result))
    if left > 0:
        words += f" {left} more columns are in report.json."
    if any((s.count > 0).sum() > _SLICES for s in _chosen(result)):
        words += f" Of more than {_SLICES} slices the worst {_SLICES} are shown."
    return words


DRAWINGS = (Drawing("failures_slices", "Error by slices", _draw, _caption),)
