"""A map of layers over time: what the gradient, update and activation plots have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.report import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.trace import Floats, LayerMap

MOST_ROWS = 40
_ZERO = "#7a0019"


@dataclass(frozen=True, slots=True)
class Look:
    """How a map is coloured: ``logarithmic`` (exact zeros have their own colour) or linear from 0 to 1."""

    title: str
    unit: str
    colours: str = "viridis"
    logarithmic: bool = True
    compact: bool = False


def worst_rows(layers: LayerMap, severity: Mapping[str, str], *, high_is_bad: bool) -> LayerMap:
    """The layers as they are, or the :data:`MOST_ROWS` worst of them, in the model's order.

    Layers with an issue or a NaN come first, then those furthest from harmless: highest or lowest last value.
    """
    if len(layers.names) <= MOST_ROWS:
        return layers
    rank = {"critical": 3.0, "warning": 2.0, "info": 1.0}
    last = np.array([_last_finite(row) for row in layers.values])
    harm = np.where(np.isfinite(last), last if high_is_bad else -last, -np.inf)
    order = np.argsort(np.argsort(harm, kind="stable")) / len(last)
    badness = [
        rank.get(severity.get(n, ""), 0.0) + 4.0 * bool(layers.bad[i].any()) + float(order[i])
        for i, n in enumerate(layers.names)
    ]
    return layers.rows(sorted(np.argsort(badness, kind="stable")[-MOST_ROWS:].tolist()))


def _last_finite(row: Floats) -> float:
    finite = row[np.isfinite(row)]
    return float(finite[-1]) if len(finite) else math.nan


def height(rows: int) -> float:
    """Height in inches of a plot with so many rows."""
    return max(2.6, 1.3 + 0.19 * rows)


def draw(drawn: Figure, axes: Axes, layers: LayerMap, look: Look, theme: style.Theme, last: float) -> None:
    """Draw the map with its colour bar into ``axes``; bad cells are crossed."""
    values = layers.values
    cells, limits = _log_cells(values) if look.logarithmic else (values, (0.0, 1.0))
    colours = style.colormap(look.colours, theme).with_extremes(bad=theme.unmeasured, under=_ZERO)
    mesh = axes.pcolormesh(
        layers.edges,
        np.arange(len(layers.names) + 1) - 0.5,
        np.ma.masked_invalid(cells),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    _cross_bad(axes, layers, theme)
    axes.set_ylim(len(layers.names) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_title(look.title)
    style.steps_axis(axes, max(last, float(layers.edges[-1]) - 0.5))
    has_zeros = look.logarithmic and bool((values == 0).any())
    bar = drawn.colorbar(
        mesh,
        ax=axes,
        pad=0.01,
        aspect=30,
        extend="min" if has_zeros else "neither",
        location="bottom" if look.compact else "right",
        shrink=0.9,
    )
    bar.outline.set_visible(False)
    bar.set_label(look.unit + (" (dark red: exactly 0)" if has_zeros else ""), fontsize=8)
    if look.logarithmic:
        _power_bar(bar, limits)


def _log_cells(values: Floats) -> tuple[Any, tuple[float, float]]:
    """Decimal logarithms and colour limits; exact zeros lie below the lower limit and stay visible."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return np.where(values == 0, -2.0, np.nan), (-1.0, 0.0)
    low, high = float(np.log10(positive.min())), float(np.log10(positive.max()))
    if high - low < 0.5:
        low, high = low - 0.25, high + 0.25
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(values)
    return np.where(values == 0, low - 1.0, logs), (low, high)


def _power_bar(bar: Any, limits: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    whole = limits[1] - limits[0] >= 2
    bar.locator = MaxNLocator(nbins=6, integer=whole)
    bar.formatter = FuncFormatter(lambda v, _: style.short(float(f"{10.0**v:.2g}")))
    bar.update_ticks()


def _cross_bad(axes: Axes, layers: LayerMap, theme: style.Theme) -> None:
    rows, bins = np.nonzero(layers.bad)
    if len(rows):
        middle = (layers.edges[:-1] + layers.edges[1:]) / 2
        axes.plot(
            middle[bins], rows, "x", color=theme.critical, markersize=4, markeredgewidth=1.1, label="NaN or ∞"
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)


def name_rows(axes: Axes, layers: LayerMap, severity: Mapping[str, str], theme: style.Theme) -> None:
    """Write the layers' full names beside the rows; those with an issue in the colour of its severity."""
    axes.set_yticks(range(len(layers.names)), [style.label(n or "(model)") for n in layers.names])
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    for text, name in zip(axes.get_yticklabels(), layers.names, strict=True):
        text.set_color(theme.ink)
        if name in severity:
            text.set_color(theme.severity(severity[name]))
            text.set_fontweight("bold")


def cut_note(layers: LayerMap) -> str:
    """What to say when not all layers are drawn; empty when they are."""
    shown = len(layers.names)
    return f" Shown are the {shown} worst of {layers.total} layers." if shown < layers.total else ""
