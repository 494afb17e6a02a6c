"""Throughput of each interval, and how its time divides into computing and waiting for data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.marks import draw_incidents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report
    from torchwatch.report.trace import Points

TITLE = "Throughput and waiting"
_RATES = (("samples_per_s", "samples / s"), ("steps_per_s", "steps / s"))


def caption(report: Report) -> str:
    """What is counted."""
    words = "Throughput of each interval; evaluation and saving between steps are not counted."
    if "wait_share" not in report.trace.intervals:
        return f"{words} Waiting for data was not measured: wrap the loader in watch.batches(loader)."
    return f"{words} Below: the share of that time spent waiting for the next batch."


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """Throughput above, waiting below where it was measured."""
    rate = next(((n, w) for n, w in _RATES if _any(report, n)), None)
    waiting = _any(report, "wait_share")
    if rate is None and not waiting:
        return None
    panels = int(rate is not None) + int(waiting)
    drawn = style.figure(1.0 + 1.9 * panels)
    grid = list(drawn.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    if rate is not None:
        _draw_rate(report, grid[0], theme, rate)
    if waiting:
        _draw_waiting(report.trace.intervals["wait_share"], grid[-1], theme)
    style.steps_axis(grid[-1], report.trace.last_step)
    return drawn


def _any(report: Report, name: str) -> bool:
    points = report.trace.intervals.get(name)
    return points is not None and bool(np.isfinite(points.values).any())


def _draw_rate(report: Report, axes: Axes, theme: style.Theme, rate: tuple[str, str]) -> None:
    points = report.trace.intervals[rate[0]]
    marker = "o" if len(points.at) <= 60 else ""
    axes.plot(points.at, points.values, marker=marker, ls="-", color=theme.series[0], lw=1.4, ms=3.5)
    axes.set_ylabel(rate[1])
    style.scale(axes, points.values, wide=1000.0)
    top = style.range_of(points.values)
    if axes.get_yscale() == "linear" and top is not None:
        axes.set_ylim(0, 1.15 * top[1] or 1.0)
    draw_incidents(axes, [m for m in report.marks if m.category in ("throughput", "system")], theme)


def _draw_waiting(points: Points, axes: Axes, theme: style.Theme) -> None:
    percent = points.values * 100
    starts = np.concatenate([[0.0], points.at[:-1]])
    axes.bar(
        starts,
        percent,
        width=points.at - starts,
        align="edge",
        color=theme.series[1],
        alpha=0.85,
        linewidth=0,
    )
    axes.set_ylabel("waiting for data (%)")
    top = style.range_of(percent)
    axes.set_ylim(0, max(10.0, 1.1 * top[1]) if top else 10.0)
