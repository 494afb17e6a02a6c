"""Uncertainty: reliability, coverage, and whether the spread under dropout follows the errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Bullets, Fold, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.results.uncertainty import Reliability, Uncertainty


def blocks(result: Uncertainty) -> list[Block]:
    """Numbers in words, coverage as a table, the plots, and which modules were switched on."""
    found: list[Block] = []
    if result.passes:
        found.append(Text(_words(result)))
    if result.coverage is not None:
        c = result.coverage
        rows = [
            [percent(n), percent(d), percent(w)]
            for n, d, w in zip(c.nominal, c.dropout, c.with_noise, strict=True)
        ]
        head = ["interval", "holds, dropout alone", "holds, with the residuals' noise"]
        found.append(Table(head, rows, frozenset({0, 1, 2})))
    found += [Plot(d.name) for d in DRAWINGS]
    if result.dropouts:
        names = [("", shortened(n)) for n in result.dropouts[:40]]
        rest = len(result.dropouts) - len(names)
        more = [("", f"and {rest:,} more")] if rest else []
        found.append(Fold("Dropout modules that were switched on", [Bullets(names + more)]))
    return found


def _words(result: Uncertainty) -> str:
    words = (
        f"{result.passes} passes, {len(result.dropouts)} dropout module{'s' * (len(result.dropouts) > 1)} on"
    )
    words += f"; median standard deviation over the passes {number(result.typical)}"
    if np.isfinite(result.ranks_errors):
        if result.entropy.size:
            words += (
                f"; entropy against wrong decisions: area under the ROC curve {number(result.ranks_errors)}"
            )
        else:
            words += f"; standard deviation against error: Spearman {number(result.ranks_errors)}"
    return f"{words}."


# ---------------------------------------------------------------------- classes


def _draw_reliability(result: Uncertainty, theme: style.Theme) -> Figure | None:
    """Accuracy over confidence, and below how many decisions there are."""
    shown = [r for r in result.reliability if r.count.sum()]
    if not shown:
        return None
    drawn = style.figure(5.6)
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=theme.muted, ls="--", lw=1.1, label="calibrated")
    for i, each in enumerate(shown):
        _draw_diagram(upper, lower, each, theme.series[i], "osD"[i], i - (len(shown) - 1) / 2)
    upper.set_ylabel("accuracy")
    upper.set_ylim(-0.03, 1.03)
    upper.set_xlim(-0.01, 1.01)
    upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=3)
    lower.set_ylabel("decisions")
    lower.set_xlabel("confidence (probability of the predicted class)")
    style.scale(lower, *[r.count[r.count > 0].astype(np.float64) for r in shown])
    return drawn


def _draw_diagram(
    upper: Axes, lower: Axes, each: Reliability, colour: str, marker: str, offset: float
) -> None:
    full = each.count > 0
    x, y = each.confidence[full], each.accuracy[full]
    ends = [np.maximum(y - each.low[full], 0), np.maximum(each.high[full] - y, 0)]
    name = f"{each.of}, ECE {number(each.ece)}"
    upper.errorbar(x, y, ends, color=colour, marker=marker, ms=5, lw=1.4, elinewidth=1, capsize=2, label=name)
    width = 0.4 / (each.edges.size - 1)
    middle = (each.edges[:-1] + each.edges[1:]) / 2 + offset * width
    lower.bar(middle[full], each.count[full], width, color=colour)


def _reliability_caption(result: Uncertainty) -> str:
    words = (
        "In 15 bins of confidence, with the 95 % interval of each accuracy. Below the diagonal the model is "
        "surer than it is right."
    )
    return words if result.passes else f"{words} The model has no dropout modules."


def _draw_entropy(result: Uncertainty, theme: style.Theme) -> Figure | None:
    """Distribution of the predictive entropy of right and of wrong decisions."""
    if not result.entropy.size:
        return None
    drawn = style.figure(3.4)
    axes = drawn.subplots()
    edges = np.linspace(0, max(float(result.entropy.max()), 1e-6), 31).tolist()
    parts = [("all", result.entropy)]
    if result.right.size:
        parts = [("right", result.entropy[result.right]), ("wrong", result.entropy[~result.right])]
    for i, (name, values) in enumerate(parts):
        if values.size:
            share = np.full(values.size, 1 / values.size)
            label = f"{name} ({values.size:,})"
            axes.hist(values, edges, weights=share, color=theme.series[i], alpha=0.55, label=label)
            axes.hist(values, edges, weights=share, color=theme.series[i], histtype="step", lw=1.4)
    axes.set_xlabel("predictive entropy (nats)")
    axes.set_ylabel("share of the decisions")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return drawn


def _entropy_caption(_: Uncertainty) -> str:
    return "Entropy of the mean of the dropout passes. It is of use where wrong decisions lie further right."


# ---------------------------------------------------------------------- regression


def _draw_coverage(result: Uncertainty, theme: style.Theme) -> Figure | None:
    """Left: targets inside the intervals. Right: error over spread."""
    if result.coverage is None or not dots.finite(result.std, result.residuals).any():
        return None
    drawn = style.figure(4.2)
    left, right = drawn.subplots(1, 2)
    c = result.coverage
    left.plot([0, 1], [0, 1], color=theme.muted, ls="--", lw=1.1, label="calibrated")
    left.plot(c.nominal, c.dropout, "o-", color=theme.series[0], label="dropout alone")
    left.plot(c.nominal, c.with_noise, "s-", color=theme.series[1], label="with the residuals' noise")
    left.set_xlabel("share that the interval should hold")
    left.set_ylabel("share of the targets that it holds")
    left.set_xlim(0, 1)
    left.set_ylim(-0.03, 1.03)
    left.legend(loc="upper left")
    _draw_spread(right, result, theme)
    return drawn


def _draw_spread(axes: Axes, result: Uncertainty, theme: style.Theme) -> None:
    """Absolute error over standard deviation, with means in bins."""
    spread, error = result.std.ravel(), np.abs(result.residuals).ravel()
    fine = dots.finite(spread, error)
    spread, error = spread[fine], error[fine]
    axes.plot(spread, error, "o", color=theme.series[0], ms=3, alpha=0.35, mew=0)
    middle, mean, half = dots.binned(spread, error)
    if middle.size > 1 and np.ptp(spread) > 0:
        axes.errorbar(
            middle, mean, half, color=theme.series[1], lw=1.6, marker="o", ms=4, capsize=2, label="mean, 95 %"
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    axes.set_xlabel("standard deviation over the passes (unit of the target)")
    axes.set_ylabel("absolute error")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _coverage_caption(_: Uncertainty) -> str:
    return (
        "Left: below the diagonal intervals are too narrow; dropout alone leaves the noise of the targets "
        "out. Right: a spread that knows where errors are rises to the right."
    )


DRAWINGS = (
    Drawing("uncertainty_reliability", "Reliability diagram", _draw_reliability, _reliability_caption),
    Drawing("uncertainty_entropy", "Entropy of right and wrong decisions", _draw_entropy, _entropy_caption),
    Drawing("uncertainty_coverage", "Coverage, and error by spread", _draw_coverage, _coverage_caption),
)
