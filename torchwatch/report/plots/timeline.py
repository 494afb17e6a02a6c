"""Alert timeline: from when to when each check found something wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report import style
from torchwatch.report.severity import rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.marks import Span
    from torchwatch.report.report import Report

TITLE = "Alert timeline"


def caption(report: Report) -> str:
    """What a bar is."""
    del report
    return (
        "One row per check. A bar begins at the step since which the records show the trouble and ends "
        "where it "
        "resolved; an arrow means that it lasted to the end of the run."
    )


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """One row per check, the earliest at the top."""
    if not report.spans:
        return None
    checks = sorted({s.check for s in report.spans}, key=lambda c: _order(report.spans, c))
    drawn = style.figure(1.2 + 0.32 * len(checks))
    axes = drawn.subplots()
    last = max(report.trace.last_step, 1)
    seen = set()
    for span in report.spans:
        _draw_span(axes, span, checks.index(span.check), last, theme)
        seen.add(span.severity)
    axes.set_yticks(range(len(checks)), [style.label(c, 40) for c in checks])
    axes.set_ylim(len(checks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    style.steps_axis(axes, last)
    _legend(axes, sorted(seen, key=rank, reverse=True), theme)
    return drawn


def _order(spans: tuple[Span, ...], check: str) -> tuple[int, int]:
    mine = [s for s in spans if s.check == check]
    return min(s.since for s in mine), -max(rank(s.severity) for s in mine)


def _draw_span(axes: Axes, span: Span, row: int, last: int, theme: style.Theme) -> None:
    colour = theme.severity(span.severity)
    end = last if span.until is None else max(span.until, span.since)
    axes.plot(
        [span.since, end], [row, row], "-", color=colour, linewidth=7, alpha=0.55, solid_capstyle="butt"
    )
    axes.plot([span.since], [row], style.MARKERS.get(span.severity, "o"), color=colour, markersize=7)
    if span.until is None:
        axes.plot([end], [row], ">", color=colour, markersize=7, clip_on=False)


def _legend(axes: Axes, severities: list[str], theme: style.Theme) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=style.MARKERS.get(s, "o"), color=theme.severity(s), label=s)
        for s in severities
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
