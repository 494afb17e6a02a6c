"""Maps and profiles over the axes of an input: one look for attributions, GradCAM and rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchwatch.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from torchwatch.results.attributions import AttributionMap, AxisProfile

Floats = npt.NDArray[np.float64]

UNORDERED = ("channel", "feature")
"""Axes whose elements have no order: they are ranked, not drawn as a curve."""
_NAMED = 24
"""So many elements of an axis are named at its ticks, at most."""


def mesh(
    axes: Axes,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    values: Floats,
    theme: style.Theme,
    *,
    signed: bool,
) -> QuadMesh:
    """A map; signed ones diverge symmetrically about 0, others run from 0 upwards.

    Args:
        axes: where.
        x: edges of the columns (c + 1,).
        y: edges of the rows (r + 1,).
        values: (r, c); NaN is left in the colour of what was not measured.
        theme: colours.
        signed: whether below 0 means the opposite.
    """
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    drawn = axes.pcolormesh(
        x,
        y,
        np.ma.masked_invalid(values),
        cmap=style.colormap("RdBu_r" if signed else "cividis", theme),
        vmin=-most if signed else 0.0,
        vmax=most,
        rasterized=True,
    )
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[-1], y[0])
    axes.grid(visible=False)
    return drawn


def overview(
    drawn: Figure,
    axes: Axes,
    seen: AttributionMap,
    theme: style.Theme,
    *,
    signed: bool,
    words: str,
    rate: float | None = None,
    names: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """One map of attributions with its colour bar.

    Args:
        drawn: the figure.
        axes: where.
        seen: the map.
        theme: colours.
        signed: the signed map, else that of the magnitudes.
        words: what its colours are.
        rate: of a time axis (Hz).
        names: of the elements of each axis, those of channels are at its ticks.
    """
    values = seen.signed if signed else seen.magnitude
    x = seen.column_edges / (rate if rate and seen.columns == "time" else 1.0)
    image = mesh(axes, x, seen.row_edges, values, theme, signed=signed)
    image_axes = {seen.rows, seen.columns} == {"height", "width"}
    if image_axes:
        axes.set_aspect("equal")
    axes.set_xlabel(axis_label(seen.columns, rate))
    axes.set_ylabel(axis_label(seen.rows, rate))
    elements = (names or {}).get(seen.rows, ())
    if len(elements) > 1 and seen.rows in UNORDERED:
        named = range(0, len(elements), -(-len(elements) // _NAMED))
        axes.set_yticks([i + 0.5 for i in named], [style.label(elements[i], 20) for i in named])
    bar = drawn.colorbar(image, ax=axes, shrink=0.9, pad=0.01)
    bar.set_label(words)


def axis_label(axis: str, rate: float | None = None) -> str:
    """Name of an axis with its unit where it is known."""
    unit = {"time": " (s)" if rate else " (samples)", "height": " (pixels)", "width": " (pixels)"}.get(
        axis, ""
    )
    return style.label(axis) + unit


def curve(
    axes: Axes,
    profile: AxisProfile,
    theme: style.Theme,
    *,
    rate: float | None = None,
    colour: str = "",
    words: str = "",
) -> None:
    """A profile along an ordered axis with a band of its standard error on either side."""
    colour = colour or theme.series[0]
    x = np.arange(len(profile.importance)) / (rate if rate and profile.axis == "time" else 1.0)
    low, high = profile.importance - profile.error, profile.importance + profile.error
    if np.isfinite(profile.error).all():
        axes.fill_between(x, low, high, color=colour, alpha=0.25, lw=0)
    axes.plot(
        x, profile.importance, color=colour, lw=1.5, label=words or None, marker="o" if len(x) < 12 else ""
    )
    axes.set_xlabel(axis_label(profile.axis, rate))
    axes.set_xlim(x[0], x[-1] if len(x) > 1 else x[0] + 1)
    if profile.axis not in ("time", "height", "width", "depth") and len(x) <= _NAMED:
        axes.set_xticks(x, [style.label(e, 12) for e in profile.elements])
