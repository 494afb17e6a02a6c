"""Memory of the training process and of its device, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report
    from torchwatch.report.trace import Points

TITLE = "Memory"
_SERIES = (
    ("rss_bytes", "process (resident)"),
    ("cuda_allocated_bytes", "device, allocated"),
    ("cuda_reserved_bytes", "device, reserved"),
)
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


def caption(report: Report) -> str:
    """Where the numbers come from."""
    often = (
        "about once a second" if _source(report) is report.trace.systems else "at the end of each interval"
    )
    return (
        f"Memory read {often}. A line that keeps rising after the first minutes is something kept by mistake."
    )


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """One panel from zero, in the unit that fits."""
    source = _source(report)
    present = [(n, w) for n, w in _SERIES if n in source and np.isfinite(source[n].values).any()]
    if not present:
        return None
    drawn = style.figure(3.0)
    axes = drawn.subplots()
    highest = max(float(np.nanmax(source[n].values)) for n, _ in present)
    unit, factor = next(((u, f) for u, f in _UNITS if highest >= f), _UNITS[-1])
    for i, (name, what) in enumerate(present):
        points = source[name]
        marker = "o" if len(points.at) < 3 else ""
        axes.plot(
            points.at,
            points.values / factor,
            marker=marker,
            ls="-",
            lw=1.5,
            ms=3.5,
            color=theme.series[i],
            label=what,
        )
    axes.set_ylim(0, 1.12 * highest / factor or 1.0)
    axes.set_ylabel(f"memory ({unit})")
    if source is report.trace.systems:
        axes.set_xlim(left=0)
        axes.set_xlabel("time since start (s)")
    else:
        style.steps_axis(axes, report.trace.last_step)
    axes.legend(loc="lower right")
    return drawn


def _source(report: Report) -> dict[str, Points]:
    """The readings of every second where there are at least two, else those of the intervals."""
    readings = report.trace.systems.get("rss_bytes")
    return report.trace.systems if readings is not None and len(readings.at) >= 2 else report.trace.intervals
