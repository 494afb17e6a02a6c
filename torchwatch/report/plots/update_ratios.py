"""Update ratios: how far one optimizer step moves the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report import heatmap, style
from torchwatch.report.marks import draw_bad, draw_incidents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report

TITLE = "Update ratios"
_LOOK = heatmap.Look("Update ratio per layer", "‖Δw‖ / ‖w‖", "plasma")


def caption(report: Report) -> str:
    """What the ratio means."""
    words = (
        "Size of a step's change of the weights over the size of the weights, ‖Δw‖ / ‖w‖. Around 10⁻³ is "
        "common; "
        "far above 10⁻² training shakes, far below 10⁻⁵ it stands still."
    )
    layers = report.trace.maps.get("updates")
    if layers is None:
        return words
    return words + heatmap.cut_note(heatmap.worst_rows(layers, report.layer_severity, high_is_bad=True))


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """The ratio of the whole model above, per layer below."""
    curve, layers = report.trace.curves.get("update_ratio"), report.trace.maps.get("updates")
    with_curve = curve is not None and curve.drawable
    if not with_curve and layers is None:
        return None
    if layers is None:
        drawn = style.figure(2.8)
        _draw_curve(report, drawn.subplots(), theme)
        return drawn
    layers = heatmap.worst_rows(layers, report.layer_severity, high_is_bad=True)
    tall = heatmap.height(len(layers.names))
    drawn = style.figure(tall + (2.2 if with_curve else 0.0))
    if with_curve:
        upper, lower = drawn.subplots(2, 1, height_ratios=[2.2, tall])
        _draw_curve(report, upper, theme)
    else:
        lower = drawn.subplots()
    heatmap.draw(drawn, lower, layers, _LOOK, theme, report.trace.last_step)
    heatmap.name_rows(lower, layers, report.layer_severity, theme)
    return drawn


def _draw_curve(report: Report, axes: Axes, theme: style.Theme) -> None:
    curve = report.trace.curves["update_ratio"]
    axes.plot(
        curve.steps, curve.mean, marker="o" if curve.count == 1 else "", ls="-", lw=0.9, color=theme.series[0]
    )
    if curve.thinned:
        axes.fill_between(curve.steps, curve.low, curve.high, color=theme.series[0], alpha=0.3, linewidth=0)
    draw_bad(axes, curve.bad, theme, "NaN or ∞")
    style.scale(axes, curve.low, curve.high)
    axes.set_ylabel("‖Δw‖ / ‖w‖, whole model")
    draw_incidents(axes, report.marks, theme)
    style.steps_axis(axes, report.trace.last_step)
    if len(curve.bad):
        style.legend_above(axes)
