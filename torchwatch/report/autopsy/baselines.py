"""Naive baselines: the model's error beside theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Plot, Table, Text
from torchwatch.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.results.baselines import Baseline, Baselines


def blocks(result: Baselines) -> list[Block]:
    """One row per baseline, what they were fitted on, and the bars."""
    head = ["baseline", "metric", "its error", "model's error", "skill", "95 % interval"]
    rows = [
        [
            b.name, b.metric, number(b.error), number(b.model_error), number(b.skill),
            f"{number(b.skill_low)} … {number(b.skill_high)}",
        ]
        for b in result.baselines
    ]  # fmt: skip
    fitted = "the evaluated targets themselves (an oracle)" if result.oracle else "training targets"
    words = (
        f"Skill is 1 − error / error of the baseline: 1 is perfect, 0 no better, below 0 worse. Fitted on "
        f"{result.fitted_on:,} {'samples: ' if result.oracle else ''}{fitted}, scored on {result.samples:,} "
        f"samples; for the interval {result.unit}s were drawn again."
    )
    return [Table(head, rows, frozenset({2, 3, 4, 5})), Text(words, quiet=True), *map(_plot, DRAWINGS)]


def _plot(drawing: Drawing) -> Plot:
    return Plot(drawing.name)


def _draw(result: Baselines, theme: style.Theme) -> Figure | None:
    """One panel per metric with two bars, and below the skills."""
    if not any(np.isfinite(b.skill) for b in result.baselines):
        return None
    drawn = style.figure(4.2)
    grid = drawn.add_gridspec(2, len(result.baselines), height_ratios=[1.15, 1])
    for i, baseline in enumerate(result.baselines):
        _bars(drawn.add_subplot(grid[0, i]), baseline, theme, oracle=result.oracle)
    _skills(drawn.add_subplot(grid[1, :]), result, theme)
    return drawn


def _bars(axes: Axes, b: Baseline, theme: style.Theme, *, oracle: bool) -> None:
    names = [f"{b.name} (oracle)" if oracle else b.name, "model"]
    values = [b.error, b.model_error]
    bars = axes.barh(names, np.nan_to_num(values), color=[theme.muted, theme.series[0]], height=0.6)
    axes.bar_label(bars, [number(v) for v in values], padding=4, color=theme.ink, fontsize=8)
    axes.set_xlabel(b.metric)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)


def _skills(axes: Axes, result: Baselines, theme: style.Theme) -> None:
    found = result.baselines
    value, low, high = (
        np.array([getattr(b, name) for b in found]) for name in ("skill", "skill_low", "skill_high")
    )
    colours = [theme.critical if b.name in result.worse else theme.series[0] for b in found]
    names = [f"against the {b.name}" for b in found]
    dots.draw_dots(axes, names, value, low, high, theme, colours=colours)
    axes.set_xlabel("skill (1 − error / error of the baseline)")
    dots.reference(axes, 0.0, "no better than naive", theme)


def _caption(result: Baselines) -> str:
    words = (
        "Above: errors, smaller is better. Below: skill with its 95 % interval; left of the line is worse."
    )
    if result.oracle:
        words += " The baselines are an oracle: they were fitted on the evaluated targets."
    return words


DRAWINGS = (Drawing("baselines_bars", "The model against naive predictors", _draw, _caption),)
