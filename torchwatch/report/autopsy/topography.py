"""Topography: maps between the sensors, with the sensors on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.document import Block, Plot, Table, Text, shortened
from torchwatch.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.topography import Layer, Topography

Floats = npt.NDArray[np.float64]

_BEHIND = {"boxstyle": "round,pad=0.1", "fc": "#ffffff", "alpha": 0.75, "lw": 0}
_LEVELS = 25
"""Colours between the levels; an odd number, so that the middle one lies about 0."""
_NAMED = 40
"""With more sensors only the highest are named."""
_TOP = 10


def blocks(result: Topography) -> list[Block]:
    """The maps, and the highest sensors."""
    placed = int(np.isfinite(result.positions).all(1).sum())
    shown: list[Block] = [
        Text(f"{placed:,} of {len(result.channels):,} channels have a place ({result.source}).")
    ]
    shown.append(Plot("topography"))
    order = np.argsort(-np.nan_to_num(result.layers[0].values, nan=-np.inf), kind="stable")[:_TOP]
    rows = [
        [shortened(result.channels[i]), *(_known(layer.values[i]) for layer in result.layers)] for i in order
    ]
    head = ["channel", *(layer.words for layer in result.layers)]
    return [*shown, Table(head, rows, numeric=frozenset(range(1, len(head))), names=frozenset({0}))]


def _known(value: float) -> str:
    return "not tested" if np.isnan(value) else number(float(value))


def _draw(result: Topography, theme: Theme) -> Figure | None:
    """One map per quantity."""
    if not np.isfinite(result.positions).all(1).any():
        return None
    drawn = style.figure(4.6)
    grid = drawn.subplots(1, max(2, len(result.layers)), squeeze=False)
    for axes in grid.flat[len(result.layers) :]:
        axes.set_axis_off()
    for layer, axes in zip(result.layers, grid.flat, strict=False):
        _map(drawn, axes, layer, result, theme)
    return drawn


def _map(drawn: Figure, axes: Axes, layer: Layer, result: Topography, theme: Theme) -> None:
    placed = np.asarray(np.isfinite(result.positions).all(1))
    known = placed & np.isfinite(layer.values)
    x, y = result.positions[known].T
    values = layer.values[known]
    most = float(np.abs(values).max()) if values.size else 0.0
    most = most or 1.0
    low = -most if layer.signed else 0.0
    colours = style.colormap("RdBu_r" if layer.signed else "cividis", theme)
    levels = np.linspace(low, most, _LEVELS + 1)
    if _spans_a_plane(x, y):
        axes.tricontourf(x, y, np.clip(values, low, most), levels=levels, cmap=colours)
    dots = axes.scatter(
        x,
        y,
        c=values,
        cmap=colours,
        vmin=low,
        vmax=most,
        s=26,
        edgecolors="#1c2430",
        linewidths=0.7,
        zorder=3,
    )
    unknown = placed & ~np.isfinite(layer.values)
    axes.plot(*result.positions[unknown].T, "x", color=theme.muted, ms=6)
    _name(axes, layer, result, placed)
    axes.set_aspect("equal")
    axes.use_sticky_edges = False
    axes.margins(0.12)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(style.label(layer.words, 48))
    drawn.colorbar(dots, ax=axes, shrink=0.75).ax.tick_params(labelsize=8)


def _spans_a_plane(x: Floats, y: Floats) -> bool:
    """Whether there are three places that are not on one line, all different."""
    if len(x) < 3:
        return False
    places = np.stack([x, y], 1)
    centred = places - places.mean(0)
    sizes = np.linalg.svd(centred, compute_uv=False)
    return bool(sizes[1] > 1e-6 * sizes[0]) and len(np.unique(places, axis=0)) >= 3


def _name(axes: Axes, layer: Layer, result: Topography, placed: npt.NDArray[np.bool_]) -> None:
    order = np.nonzero(placed)[0]
    if len(order) > _NAMED:
        order = order[np.argsort(-np.nan_to_num(layer.values[order], nan=-np.inf), kind="stable")[:_TOP]]
    for i in order:
        place = (float(result.positions[i, 0]), float(result.positions[i, 1]))
        axes.annotate(
            style.label(result.channels[i], 12), place, xytext=(0, 5), textcoords="offset points", fontsize=7,
            ha="center", color="#1c2430", bbox=_BEHIND,
        )  # fmt: skip


def _caption(result: Topography) -> str:
    words = "Between the sensors the map is linear; only at the dots was anything measured."
    if any(layer.signed for layer in result.layers):
        words += " Below 0 the error falls without a channel."
    if any(np.isnan(layer.values).any() for layer in result.layers):
        words += " Crosses: not tested."
    placed = int(np.isfinite(result.positions).all(1).sum())
    return f"{words} The {_TOP} highest of {placed} are named." if placed > _NAMED else words


DRAWINGS = (Drawing("topography", "On the plane of the sensors", _draw, _caption),)
