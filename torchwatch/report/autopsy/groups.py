"""Groups: the metric of each with its interval, and how variance splits between and within them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.results.groups import Groups

_ROWS = 20


def blocks(result: Groups) -> list[Block]:
    """Spread and worst in words, the plots, the groups and the split of variance as tables."""
    found: list[Block] = [Text(_words(result)), *(Plot(d.name) for d in DRAWINGS)]
    rows = [
        [
            shortened(result.names[i]), f"{result.count[i]:,}", number(result.value[i]),
            f"{number(result.low[i])} … {number(result.high[i])}",
            "fewer than 5 samples" if result.few[i] else "",
        ]
        for i in range(min(_ROWS, len(result.names)))
    ]  # fmt: skip
    head = [result.by, "samples", result.metric, "95 % interval", ""]
    found.append(Table(head, rows, frozenset({1, 2, 3}), frozenset({0})))
    if len(rows) < len(result.names):
        found.append(Text(f"The worst {len(rows)} of {len(result.names):,}.", quiet=True))
    return found + _splits(result)


def _words(result: Groups) -> str:
    plural = "classes" if result.by == "class" else "groups"
    words = f"{result.metric} {number(result.overall)} over all samples of {len(result.names):,} {plural}"
    if np.isfinite(result.spread):
        words += (
            f"; standard deviation over {plural} {number(result.spread)} (as large by chance with p = "
            f"{number(result.spread_p)})"
        )
    if result.worst is not None:
        value = result.value[result.names.index(result.worst)]
        words += f"; worst: {shortened(result.worst, 60)} with {number(value)}"
    return f"{words}."


def _splits(result: Groups) -> list[Block]:
    if not result.splits:
        return []
    rows = [
        [s.quantity, number(s.between), number(s.within), percent(s.share) if np.isfinite(s.share) else "–"]
        for s in result.splits
    ]
    table = Table(
        ["variance of", "between groups", "within groups", "between, share"], rows, frozenset({1, 2, 3})
    )
    if not np.isfinite(result.pearson_within) and not np.isfinite(result.pearson_between):
        return [table]
    words = (
        f"Predictions and targets correlate with r = {number(result.pearson_within)} within groups (95 % "
        f"{number(result.within_low)} … {number(result.within_high)}) and r = "
        f"{number(result.pearson_between)} between the groups' means."
    )
    return [table, Text(words)]


def _draw(result: Groups, theme: style.Theme) -> Figure | None:
    """A point with its interval per group, the worst at the top."""
    shown = min(dots.ROWS, len(result.names))
    if not shown:
        return None
    drawn = style.figure(dots.height(shown))
    axes = drawn.subplots()
    names = [
        f"{style.label(n, 34)} ({c:,})" for n, c in zip(result.names[:shown], result.count, strict=False)
    ]
    dots.draw_dots(
        axes, names, result.value[:shown], result.low[:shown], result.high[:shown], theme,
        hollow=result.few[:shown],
    )  # fmt: skip
    if not result.higher_is_better:
        style.scale(axes, result.value[:shown], axis="x")
    unit = "unit of the targets" if result.metric == "RMSE" else "share of right decisions"
    axes.set_xlabel(f"{result.metric} ({unit})")
    dots.reference(axes, result.overall, "all samples", theme)
    return drawn


def _caption(result: Groups) -> str:
    plural = "classes" if result.by == "class" else "groups"
    words = f"The worst at the top, each with its 95 % interval and its number of samples, of all {plural}."
    if result.few.any():
        words += " Rings: fewer than 5 samples."
    return words + dots.cut_note(min(dots.ROWS, len(result.names)), len(result.names), plural)


def _draw_variance(result: Groups, theme: style.Theme) -> Figure | None:
    """A bar per quantity: its share between the groups."""
    splits = [s for s in result.splits if np.isfinite(s.share)]
    if len(splits) < 2:
        return None
    drawn = style.figure(0.9 + 0.4 * len(splits))
    axes = drawn.subplots()
    names, share = [s.quantity for s in splits], np.array([s.share for s in splits])
    axes.barh(names, share, color=theme.series[0], height=0.6, label="between groups")
    axes.barh(
        names, 1 - share, left=share, color=theme.series[4], height=0.6, alpha=0.55, label="within groups"
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the variance")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return drawn


def _variance_caption(_: Groups) -> str:
    return (
        "How much of each quantity's variance lies between the groups' means, less what chance puts there. "
        "Residuals between groups are an offset of each group; predictions that vary between groups far more "
        "than targets do tell groups apart."
    )


DRAWINGS = (
    Drawing("groups_metric", "Metric of each group", _draw, _caption),
    Drawing("groups_variance", "Variance between and within groups", _draw_variance, _variance_caption),
)
