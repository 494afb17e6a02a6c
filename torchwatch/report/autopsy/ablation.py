"""Ablation: rankings with their intervals, a row per element, steps along an axis, a map of patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Fold, Plot, Table, Text, shortened
from torchwatch.results.ablation import Ablation, AxisAblation, Kind
from torchwatch.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme

_ROWS, _MORE_ROWS = 20, 10

_FILLS = {
    "permutation": "the values of other samples",
    "mean": "the mean",
    "noise": "noise of the same mean and spread",
    "zero": "zero",
}
_PLURALS = {"window": "windows along {0}", "patch": "patches", "group": "groups", "module": "blocks"}


def blocks(result: Ablation) -> list[Block]:
    """What was done, then for each part its picture and its ranking; the first part's ranking is open."""
    kinds: list[Kind] = []
    shown: list[Block] = [Text(_introduction(result))]
    for part in result.parts:
        if part.kind not in kinds:
            kinds.append(part.kind)
            shown.append(Plot(_NAMES[part.kind]))
        if part is result.parts[0]:
            shown.append(_table(part, result, _ROWS))
        else:
            shown.append(Fold(f"Ranking of {_of(part)}", [_table(part, result, _MORE_ROWS)]))
    return shown


def _introduction(result: Ablation) -> str:
    drawn = result.fill in ("permutation", "noise")
    times = f", drawn {result.repeats} times each" if drawn and result.repeats > 1 else ""
    layer = f" of the first layer `{result.shortcut}`, which alone sees the input" if result.shortcut else ""
    return (
        f"{result.metric.capitalize()} on {result.samples:,} samples: {number(result.baseline)}. Importance "
        f"is how much it grows when an element is filled with {_FILLS.get(result.fill, result.fill)}{times}; "
        "intervals are 95 %, over samples and draws."
        + (f" What that changes was worked out in the output{layer}." if layer else "")
    )


def _of(part: AxisAblation) -> str:
    """What a part's elements are called, in the plural."""
    return _PLURALS.get(part.kind, "{0}s").format(part.axis)


def _table(part: AxisAblation, result: Ablation, rows: int) -> Table:
    name = part.kind if part.kind in ("group", "patch") else part.axis
    shown = []
    for rank, i in enumerate(part.ranking[:rows], 1):
        low, high = part.interval[i]
        share = f"{part.importance[i] / result.baseline:+.1%}" if result.baseline > 0 else "–"
        words = f"{number(low)} … {number(high)}"
        shown.append([str(rank), shortened(part.elements[i]), number(part.importance[i]), words, share])
    head = ["rank", name, "importance", "95 % interval", "of the error"]
    return Table(head, shown, numeric=frozenset({0, 2, 3, 4}), names=frozenset({1}))


def _parts(result: Ablation, kind: Kind) -> list[AxisAblation]:
    return [p for p in result.parts if p.kind == kind and p.ranking]


# ---------------------------------------------------------------------- rows


def _draw_rows(kind: Kind, result: Ablation, theme: Theme) -> Figure | None:
    """The most important at the top; rings where the interval covers 0."""
    parts = _parts(result, kind)
    if not parts:
        return None
    heights = [dots.height(min(len(p.ranking), dots.ROWS)) for p in parts]
    drawn = style.figure(sum(heights))
    grid = drawn.subplots(len(parts), 1, height_ratios=heights, squeeze=False)
    for part, axes in zip(parts, grid[:, 0], strict=True):
        chosen = np.array(part.ranking[: dots.ROWS])
        low, high = part.interval[chosen].T
        hollow = part.covers_zero[chosen]
        tints = [theme.muted if h else theme.series[0] for h in hollow]
        names = [part.elements[i] for i in chosen]
        dots.draw_dots(axes, names, part.importance[chosen], low, high, theme, colours=tints, hollow=hollow)
        axes.set_xlabel(f"change of the {result.metric}, {_unit(result)}")
        axes.set_ylabel(style.label("group" if kind == "group" else part.axis))
        dots.reference(axes, 0.0, "as good without it", theme)
    return drawn


def _unit(result: Ablation) -> str:
    """The unit of importance, and the error it is a change of."""
    unit = "nats" if "likelihood" in result.metric else "target unit²"
    return f"{unit} (now {result.baseline:.4g})"


# ---------------------------------------------------------------------- windows


def _draw_windows(result: Ablation, theme: Theme) -> Figure | None:
    """One step per window with its interval, the peak marked."""
    parts = [p for p in _parts(result, "window") if p.windows]
    if not parts:
        return None
    drawn = style.figure(2.9 * len(parts))
    for part, axes in zip(parts, drawn.subplots(len(parts), 1, squeeze=False)[:, 0], strict=True):
        _steps(axes, part, result, theme)
    return drawn


def _steps(axes: Axes, part: AxisAblation, result: Ablation, theme: Theme) -> None:
    windows = np.array(part.windows, dtype=float) / (part.rate or 1.0)
    edges = np.append(windows[:, 0], windows[-1, 1])
    low, high = part.interval.T
    color = theme.series[0]
    axes.bar(
        edges[:-1], high - low, np.diff(edges), low, align="edge", color=color, alpha=0.25,
        label="95 % interval",
    )  # fmt: skip
    axes.stairs(part.importance, edges, baseline=None, color=color, lw=1.6)
    axes.axhline(0, color=theme.ink, lw=0.8)
    if part.peak is not None:
        middle = windows[part.peak].mean()
        axes.plot(
            [middle], [part.importance[part.peak]], "v", color=theme.series[1], ms=7, mec=theme.ink, mew=0.6,
            label=f"peak: {style.label(part.elements[part.peak])}",
        )  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(f"{style.label(part.axis)} ({'s' if part.rate else 'bins'})")
    axes.set_ylabel(f"change of the\n{result.metric},\n{_unit(result)}")
    axes.legend(loc="best")


# ---------------------------------------------------------------------- patches


def _draw_patches(result: Ablation, theme: Theme) -> Figure | None:
    """The image's plane; a ring marks patches whose interval leaves out 0."""
    part = next(iter(_parts(result, "patch")), None)
    if part is None or part.patches is None or part.grid is None:
        return None
    drawn = style.figure(5.2)
    axes = drawn.subplots()
    rows, columns = part.grid
    corners = np.array(part.patches)
    x = np.append(corners[:columns, 2], corners[-1, 3])
    y = np.append(corners[::columns, 0], corners[-1, 1])
    values = np.ma.masked_invalid(part.importance.reshape(rows, columns))
    most = float(np.abs(values).max()) or 1.0
    image = axes.pcolormesh(
        x,
        y,
        values,
        cmap=style.colormap("RdBu_r", theme),
        vmin=-most,
        vmax=most,
        edgecolors=theme.grid,
        lw=0.3,
    )
    middles = (corners[:, [0, 2]] + corners[:, [1, 3]]) / 2
    clear = ~part.covers_zero
    for color, width in (
        ("#ffffff", 2.4),
        ("#1c2430", 1.0),
    ):  # seen on the dark ends of the map and its middle
        axes.plot(middles[clear, 1], middles[clear, 0], "o", mfc="none", mec=color, ms=6, mew=width)
    gone = np.isnan(part.importance)
    axes.plot(middles[gone, 1], middles[gone, 0], "x", color=theme.muted, ms=7)
    axes.set_facecolor(theme.unmeasured)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[-1], y[0])
    axes.set_xlabel("width (pixels)")
    axes.set_ylabel("height (pixels)")
    bar = drawn.colorbar(image, ax=axes, shrink=0.9)
    bar.set_label(f"change of the {result.metric}, {_unit(result)}")
    return drawn


# ---------------------------------------------------------------------- captions


def _caption_of_rows(kind: Kind, result: Ablation) -> str:
    how = "when a block gives out its mean (or zero)" if kind == "module" else "with the element filled in"
    words = f"Change of the error {how}, most important first; lines are 95 % intervals, rings cover 0."
    for part in _parts(result, kind):
        shown, tested = min(len(part.ranking), dots.ROWS), len(part.ranking)
        if shown < tested:
            words += f" The {shown} most important of {tested:,} {_of(part)} are shown."
        if part.untested:
            words += f" {part.untested:,} {_of(part)} have no value."
    return words


def _caption_of_windows(result: Ablation) -> str:
    gaps = sum(p.untested for p in _parts(result, "window"))
    words = "Change of the error with everything inside one window filled in; shaded: 95 % interval."
    if not gaps:
        return words
    return f"{words} {gaps} {'has no value and leaves' if gaps == 1 else 'have no value and leave'} a gap."


def _caption_of_patches(result: Ablation) -> str:
    words = (
        "Change of the error with one patch of the image filled in. Rings: the 95 % interval leaves out 0."
    )
    return f"{words} Crosses: no value." if any(p.untested for p in _parts(result, "patch")) else words


def _rows_drawing(kind: Kind, title: str) -> Drawing:
    draw: Callable[[Any, Theme], Figure | None] = partial(_draw_rows, kind)
    return Drawing(_NAMES[kind], title, draw, partial(_caption_of_rows, kind))


_NAMES: dict[Kind, str] = {
    "element": "ablation_elements",
    "group": "ablation_groups",
    "window": "ablation_windows",
    "patch": "ablation_patches",
    "module": "ablation_modules",
}

DRAWINGS = (
    _rows_drawing("element", "Importance of each element"),
    _rows_drawing("group", "Importance of groups"),
    Drawing("ablation_windows", "Importance along the axis", _draw_windows, _caption_of_windows),
    Drawing("ablation_patches", "Importance of patches", _draw_patches, _caption_of_patches),
    _rows_drawing("module", "Importance of the model's blocks"),
)
