"""Gradient flow: how large the gradients of each layer are, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import heatmap, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report
    from torchwatch.report.trace import Floats, LayerMap

TITLE = "Gradient flow"
_LOOK = heatmap.Look("Gradient size per layer", "gradient RMS", compact=True)


def caption(report: Report) -> str:
    """How to read the map."""
    words = (
        "Root mean square of each layer's gradients, first layer at the top. A row that darkens over "
        "time, or rows that "
        "darken towards the top, are gradients that vanish; dark red is exactly zero, grey was not measured. "
        "Right: the median of the first and of the last tenth of the run."
    )
    return words + heatmap.cut_note(_worst(report, report.trace.maps["gradients"]))


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """The map, and beside it where each layer began and ended."""
    if "gradients" not in report.trace.maps:
        return None
    layers = _worst(report, report.trace.maps["gradients"])
    drawn = style.figure(heatmap.height(len(layers.names)))
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[3.2, 1])
    heatmap.draw(drawn, left, layers, _LOOK, theme, report.trace.last_step)
    heatmap.name_rows(left, layers, report.layer_severity, theme)
    _draw_change(right, layers, theme)
    return drawn


def _worst(report: Report, layers: LayerMap) -> LayerMap:
    return heatmap.worst_rows(layers, report.layer_severity, high_is_bad=False)


def _draw_change(axes: Axes, layers: LayerMap, theme: style.Theme) -> None:
    """A dumbbell per layer: hollow where it began, full where it ended."""
    tenth = max(1, layers.values.shape[1] // 10)
    began, ended = _typical(layers.values[:, :tenth]), _typical(layers.values[:, -tenth:])
    rows = np.arange(len(layers.names))
    axes.hlines(rows, began, ended, color=theme.muted, linewidth=1.2, alpha=0.7)
    axes.plot(began, rows, "o", mfc=theme.panel, mec=theme.series[0], ms=5, label="first tenth")
    axes.plot(ended, rows, "o", color=theme.series[0], ms=5, label="last tenth")
    style.scale(axes, began, ended, axis="x")
    axes.set_xlabel("gradient RMS")
    axes.tick_params(axis="y", labelleft=False, length=0)
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=4)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.1, handletextpad=0.1)


def _typical(values: Floats) -> Floats:
    return np.array(
        [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values]
    )
