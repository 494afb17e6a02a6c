"""Loss of every step, its moving median, validation losses, and where incidents began."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.marks import draw_bad, draw_incidents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report
    from torchwatch.report.trace import Curve, Points

TITLE = "Loss"


def caption(report: Report) -> str:
    """What the lines are."""
    trace = report.trace
    thin = trace.curves.get("loss")
    words = "Thin: the loss of every step"
    if thin is not None and thin.thinned:
        words += f" ({thin.count:,} steps, drawn as the range from the smallest to the largest in each pixel)"
    words += f". Thick: its moving median over {trace.window} steps." if trace.window > 1 else "."
    if _losses(report):
        words += " Points: losses of the evaluations."
    if report.marks:
        words += " Numbered lines: the steps since which incidents have lasted."
    return words


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """Loss above, learning rate below where it was recorded."""
    trace = report.trace
    curve, evals = trace.curves.get("loss"), _losses(report)
    if (curve is None or not curve.drawable) and not evals:
        return None
    rate = trace.curves.get("lr")
    with_rate = rate is not None and rate.drawable
    drawn = style.figure(5.2 if with_rate else 4.2)
    grid = drawn.add_gridspec(2 if with_rate else 1, 1, height_ratios=[4, 1] if with_rate else [1])
    axes = drawn.add_subplot(grid[0])
    _draw_loss(report, axes, theme, evals)
    if with_rate and rate is not None:
        lower = drawn.add_subplot(grid[1], sharex=axes)
        axes.tick_params(labelbottom=False)
        marker = "o" if rate.count == 1 else ""
        lower.plot(rate.steps, rate.mean, marker=marker, ls="-", color=theme.series[2], linewidth=1.4)
        style.scale(lower, rate.mean)
        lower.set_ylabel("learning rate")
    style.steps_axis(drawn.axes[-1], trace.last_step)
    return drawn


def _draw_loss(report: Report, axes: Axes, theme: style.Theme, evals: dict[str, Points]) -> None:
    trace = report.trace
    curve = trace.curves.get("loss")
    shown = [points.values for points in evals.values()]
    if curve is not None:
        shown += [curve.low, curve.high]
        _draw_steps(axes, curve, theme)
    if trace.smooth is not None and trace.window > 1:
        what = f"train, median of {trace.window:,} steps"
        axes.plot(trace.smooth.at, trace.smooth.values, color=theme.series[0], linewidth=1.8, label=what)
    for i, (name, points) in enumerate(evals.items()):
        _draw_eval(axes, name, points, theme.series[1 + i % (len(theme.series) - 1)], theme)
    style.scale(axes, *shown)
    axes.set_ylabel("loss")
    draw_incidents(axes, report.marks, theme)
    style.legend_above(axes)


def _draw_steps(axes: Axes, curve: Curve, theme: style.Theme) -> None:
    """Every step: a thin line, or the range of each bucket."""
    blue = theme.series[0]
    if curve.thinned:
        axes.fill_between(
            curve.steps, curve.low, curve.high, color=blue, alpha=0.3, linewidth=0, label="train, range"
        )
    else:
        marker = "o" if len(curve.steps) == 1 else ""
        axes.plot(curve.steps, curve.mean, marker=marker, color=blue, alpha=0.35, lw=0.7, label="train")
    draw_bad(axes, curve.bad, theme, "loss NaN or ∞")


def _draw_eval(axes: Axes, name: str, points: Points, colour: str, theme: style.Theme) -> None:
    finite = np.isfinite(points.values)
    axes.plot(
        points.at[finite],
        points.values[finite],
        "o-",
        color=colour,
        lw=1.4,
        ms=3.5,
        label=style.label(name, 40),
    )
    draw_bad(axes, points.at[~finite], theme, style.label(f"{name} NaN or ∞", 40))


def _losses(report: Report) -> dict[str, Points]:
    return {k: v for k, v in report.trace.evals.items() if "loss" in k.lower() and len(v.at)}
