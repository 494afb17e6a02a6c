"""Global gradient norm of every step, before clipping where that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report import style
from torchwatch.report.marks import draw_bad, draw_incidents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report

TITLE = "Gradient norm"
_SERIES = (("grad_norm_preclip", "before clipping", 1), ("grad_norm", "as the optimizer sees it", 0))


def caption(report: Report) -> str:
    """What the norm is."""
    words = "L2 norm of all gradients together, step by step"
    if "grad_norm_preclip" in report.trace.curves:
        return f"{words}; where the two lines differ, gradients were clipped."
    return f"{words}, as the optimizer sees them (no clipping was observed)."


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """One panel on a logarithmic scale where the range asks for one."""
    present = [
        (n, w, i) for n, w, i in _SERIES if n in report.trace.curves and report.trace.curves[n].drawable
    ]
    if not present:
        return None
    drawn = style.figure(3.2)
    axes = drawn.subplots()
    shown = []
    for name, what, i in present:
        curve = report.trace.curves[name]
        axes.plot(
            curve.steps,
            curve.mean,
            marker="o" if curve.count == 1 else "",
            ls="-",
            lw=0.9,
            color=theme.series[i],
            label=what,
        )
        if curve.thinned:
            axes.fill_between(
                curve.steps, curve.low, curve.high, color=theme.series[i], alpha=0.3, linewidth=0
            )
        draw_bad(axes, curve.bad, theme, "NaN or ∞")
        shown += [curve.low, curve.high]
    style.scale(axes, *shown)
    axes.set_ylabel("L2 norm of all gradients")
    draw_incidents(axes, report.marks, theme)
    style.legend_above(axes)
    style.steps_axis(axes, report.trace.last_step)
    return drawn
