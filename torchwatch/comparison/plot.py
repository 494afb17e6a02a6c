"""Pictures of a comparison and of a project, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.trace import curve, moving_median

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torchwatch.comparison.compare import Comparison
    from torchwatch.comparison.trend import Project

_MOST = 6


def draw_comparison(found: Comparison, theme: style.Theme = style.LIGHT) -> bytes:
    """Losses of up to six runs; a line where each parts from the first."""
    with style.themed(theme):
        drawn = style.figure(4.6)
        axes = drawn.add_subplot()
        shown = found.runs[:_MOST]
        for at, run in enumerate(shown):
            colour = theme.series[at % len(theme.series)]
            thin = curve(run.loss.steps, run.loss.values)
            axes.plot(thin.steps, thin.mean, color=colour, linewidth=0.7, alpha=0.35)
            window = max(len(run.loss.steps) // 50, 1)
            smooth = moving_median(run.loss.steps, run.loss.values, window)
            axes.plot(smooth.at, smooth.values, color=colour, linewidth=1.8, label=style.label(run.name, 30))
        style.scale(axes, *(run.loss.values for run in shown))
        for at, part in enumerate(found.partings[: _MOST - 1], 1):
            if part.parts_at is not None:
                _mark(axes, part.parts_at, theme.series[at % len(theme.series)])
        axes.set_ylabel("loss")
        axes.legend(loc="upper right", ncols=2)
        style.steps_axis(axes, max((float(r.loss.steps[-1]) for r in shown if len(r.loss.steps)), default=1))
        return style.png(drawn)


def _mark(axes: Axes, step: int, colour: str) -> None:
    axes.axvline(step, color=colour, linewidth=1.2, linestyle="--")
    axes.annotate(
        f"parts at {step:,}", (step, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -10),
        textcoords="offset points", fontsize=8, color=colour,
    )  # fmt: skip


def draw_project(found: Project, theme: style.Theme = style.LIGHT) -> bytes:
    """Losses above, health scores below, run after run."""
    with style.themed(theme):
        drawn = style.figure(5.6)
        grid = drawn.add_gridspec(2, 1, height_ratios=[3, 2])
        upper = drawn.add_subplot(grid[0])
        lower = drawn.add_subplot(grid[1], sharex=upper)
        at = np.arange(len(found.entries))
        last = _known([e.last_loss for e in found.entries])
        best = _known([e.best for e in found.entries])
        upper.plot(at, last, marker="o", color=theme.series[0], label="last training loss")
        if np.isfinite(best).any():
            upper.plot(at, best, marker="s", color=theme.series[1], label="best validation loss")
        style.scale(upper, last, best)
        upper.set_ylabel("loss")
        upper.legend(loc="upper right", ncols=2)
        upper.tick_params(labelbottom=False)
        scores = _known([e.health_score for e in found.entries])
        lower.bar(at, np.nan_to_num(scores), color=[_colour(s, theme) for s in scores], width=0.6)
        lower.set_ylim(0, 105)
        lower.set_ylabel("health score")
        lower.set_xticks(at, [style.label(e.name, 18) for e in found.entries], rotation=30, ha="right")
        return style.png(drawn)


def _known(values: list[float | None] | list[int | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _colour(score: float, theme: style.Theme) -> str:
    if not np.isfinite(score):
        return theme.unmeasured
    return theme.series[2] if score >= 70 else theme.warning if score >= 50 else theme.critical
