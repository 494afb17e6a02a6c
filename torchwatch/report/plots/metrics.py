"""Logged metrics: what was logged in steps and in evaluations, one panel per name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.marks import draw_bad

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report

TITLE = "Metrics"
_MOST = 12
_PREFIX = re.compile(r"^(train|val|valid|eval|test)[_/]", re.IGNORECASE)


def caption(report: Report) -> str:
    """What is drawn, and what was left out."""
    total = len(_panels(report))
    cut = f" Shown are the first {_MOST} of {total}." if total > _MOST else ""
    return "Metrics as they were logged: lines are training steps, points are evaluations." + cut


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """Up to twelve small panels; names that differ by ``val_`` or the like share one."""
    panels = dict(list(_panels(report).items())[:_MOST])
    if not panels:
        return None
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    drawn = style.figure(0.6 + 2.3 * rows)
    grid = drawn.subplots(rows, columns, squeeze=False)
    flat = list(grid.flat)
    for axes, (base, names) in zip(flat, panels.items(), strict=False):
        _draw_panel(report, axes, names, theme)
        axes.set_title(style.label(base, 34))
        style.steps_axis(axes, report.trace.last_step)
    for axes in flat[len(panels) :]:
        axes.set_visible(False)
    return drawn


def _panels(report: Report) -> dict[str, list[str]]:
    """Names by what remains of them without their split; losses have a plot of their own."""
    found: dict[str, list[str]] = {}
    logged = [
        k.removeprefix("metrics.")
        for k, c in report.trace.curves.items()
        if k.startswith("metrics.") and c.count
    ]
    evaluated = [k for k, p in report.trace.evals.items() if len(p.at) and "loss" not in k.lower()]
    for name in dict.fromkeys([*logged, *evaluated]):
        found.setdefault(_PREFIX.sub("", name), []).append(name)
    return found


def _draw_panel(report: Report, axes: Axes, names: list[str], theme: style.Theme) -> None:
    shown = []
    for i, name in enumerate(names):
        colour = theme.series[i % len(theme.series)]
        curve, points = report.trace.curves.get(f"metrics.{name}"), report.trace.evals.get(name)
        if curve is not None:
            marker = "o" if curve.count == 1 else ""
            what = style.label(name, 28)
            axes.plot(curve.steps, curve.mean, marker=marker, lw=1.0, color=colour, alpha=0.8, label=what)
            if curve.thinned:
                axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.25, linewidth=0)
            draw_bad(axes, curve.bad, theme, "NaN or ∞")
            shown += [curve.low, curve.high]
        if points is not None:
            finite = np.isfinite(points.values)
            what = "_nolegend_" if curve is not None else style.label(name, 28)
            axes.plot(
                points.at[finite], points.values[finite], "o-", ms=3.5, lw=1.2, color=colour, label=what
            )
            draw_bad(axes, points.at[~finite], theme, "NaN or ∞")
            shown.append(points.values)
    style.scale(axes, *shown, wide=1000.0)
    if len(axes.get_lines()) and (len(names) > 1 or names[0] != _PREFIX.sub("", names[0])):
        axes.legend(loc="best", fontsize=7)
