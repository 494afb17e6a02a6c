"""Pictures of data quality: histogram, quantiles, channels, lags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.report import style
from torchwatch.report.autopsy import _layer_rows as layer_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.results.data_quality import Channels, DataQuality, Labels

_PANELS = 4
_CLASSES = 40
_NORMAL_TAIL = 2.576


def _shown(labels: Labels) -> list[int]:
    """Outputs that vary, at most four."""
    return [i for i in range(len(labels.names)) if labels.quantiles[i][100] > labels.quantiles[i][0]][
        :_PANELS
    ]


# ---------------------------------------------------------------------- histogram


def targets(result: DataQuality, theme: style.Theme) -> Figure | None:
    """Distribution of each output, or shares of classes, of both splits."""
    labels = result.labels
    if labels is None or not labels.names:
        return None
    if labels.kind != "numbers":
        return _class_shares(labels, theme)
    shown = _shown(labels)
    if not shown:
        return None
    drawn = style.figure(0.4 + 2.8 * len(shown))
    for axes, output in zip(drawn.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        if labels.train_quantiles.size:
            _steps(axes, labels.train_quantiles[output], theme.series[1], "training data")
        _steps(axes, labels.quantiles[output], theme.series[0], "data")
        axes.set_ylabel("density")
        axes.set_xlabel("target" if len(labels.names) == 1 else style.label(f"target {labels.names[output]}"))
        axes.set_ylim(bottom=0)
        style.legend_above(axes)
    return drawn


def _steps(axes: Axes, quantiles: npt.NDArray[np.float64], colour: str, name: str) -> None:
    """A histogram of 25 bins from 101 quantiles: what lies between two of them is spread evenly."""
    edges = np.linspace(quantiles[0], quantiles[-1], 26)
    if edges[0] == edges[-1]:
        return
    below = np.array([np.mean(np.clip(_passed(quantiles, e), 0, 1)) for e in edges])
    axes.stairs(np.diff(below) / np.diff(edges), edges, color=colour, lw=1.6, label=name, fill=False)


def _passed(quantiles: npt.NDArray[np.float64], edge: float) -> npt.NDArray[np.float64]:
    """Of each hundredth of the values the share that lies below an edge."""
    low, high = quantiles[:-1], quantiles[1:]
    with np.errstate(all="ignore"):
        inside = (edge - low) / (high - low)
    shares: npt.NDArray[np.float64] = np.where(high > low, inside, edge >= high)
    return shares


def _class_shares(labels: Labels, theme: style.Theme) -> Figure:
    rows = np.sort(np.argsort(-labels.count, kind="stable")[:_CLASSES])
    drawn = style.figure(layer_rows.height(len(rows)))
    axes = drawn.subplots()
    at = np.arange(len(rows))
    both = labels.train_share.size > 0
    width = 0.38 if both else 0.6
    axes.barh(at - (width / 2 if both else 0), labels.share[rows], width, color=theme.series[0], label="data")
    if both:
        axes.barh(
            at + width / 2, labels.train_share[rows], width, color=theme.series[1], label="training data"
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    layer_rows.name_rows(axes, [labels.names[i] for i in rows])
    axes.set_xlabel("share of the samples")
    axes.set_ylabel("class" if labels.kind == "classes" else "label")
    axes.grid(visible=False, axis="y")
    return drawn


def targets_caption(result: DataQuality) -> str:
    """What is counted."""
    labels = result.labels
    if labels is not None and labels.kind != "numbers":
        more = (
            f" The {_CLASSES} commonest of {len(labels.names):,} are shown."
            if len(labels.names) > _CLASSES
            else ""
        )
        return "Share of each class among the samples that were looked at." + more
    return "Distribution of the targets (density, from their percentiles)." + _outputs_note(labels)


def _outputs_note(labels: Labels | None) -> str:
    if labels is None or len(labels.names) <= _PANELS:
        return ""
    return f" The first {_PANELS} of {len(labels.names):,} outputs that vary are shown."


# ---------------------------------------------------------------------- Q-Q


def quantiles(result: DataQuality, theme: style.Theme) -> Figure | None:
    """Quantiles of the data over those of the training data, or over those of a normal distribution."""
    labels = result.labels
    shown = _shown(labels) if labels is not None and labels.kind == "numbers" else []
    if labels is None or not shown:
        return None
    drawn = style.figure(4.4)
    for axes, output in zip(drawn.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        ours = labels.quantiles[output]
        if labels.train_quantiles.size:
            theirs, axis = labels.train_quantiles[output], "quantile of the training targets"
        else:
            theirs, axis = (
                labels.mean[output] + labels.std[output] * _normal_quantiles(),
                "quantile of a normal distribution",
            )
        ends = [float(min(ours.min(), theirs.min())), float(max(ours.max(), theirs.max()))]
        axes.plot(ends, ends, "-", color=theme.muted, lw=1.0, label="the same")
        axes.plot(theirs, ours, "o", color=theme.series[0], ms=3, label="percentiles")
        axes.set_xlabel(axis)
        axes.locator_params(nbins=5)
        axes.set_title("" if len(labels.names) == 1 else style.label(labels.names[output], 24))
        axes.set_box_aspect(1)
    first = drawn.axes[0]
    first.set_ylabel("quantile of the targets")
    first.legend(loc="upper left")
    return drawn


def _normal_quantiles() -> npt.NDArray[np.float64]:
    """101 quantiles of the standard normal distribution; the ends stand for the outer half percent."""
    from statistics import NormalDist

    normal = NormalDist()
    inner = [normal.inv_cdf(i / 100) for i in range(1, 100)]
    return np.array([-_NORMAL_TAIL, *inner, _NORMAL_TAIL])


def quantiles_caption(result: DataQuality) -> str:
    """How to read it."""
    labels = result.labels
    if labels is not None and labels.train_quantiles.size:
        words = "Percentiles of the targets over those of the training data: points off the line are a shift."
    else:
        words = "Percentiles of the targets over those of a normal distribution: an S is a heavy tail."
    return words + _outputs_note(labels)


# ---------------------------------------------------------------------- channels


def worst_channels(found: Channels, most: int = layer_rows.MOST_ROWS) -> layer_rows.Rows:
    """Flat ones, then those far out or elsewhere than in training."""
    badness = (
        100.0 * found.flat + np.nan_to_num(np.abs(found.shift)) * 5 + np.nan_to_num(found.flat_share) * 20
    )
    return layer_rows.worst(badness + np.nan_to_num(found.worst_z) + (found.outliers > 0), most)


def channels(result: DataQuality, theme: style.Theme) -> Figure | None:
    """Mean ± standard deviation of each channel, how far its furthest value is, and its shift."""
    found = result.channels
    if found is None or not np.isfinite(found.mean).any():
        return None
    rows = worst_channels(found)
    compared = bool(np.isfinite(found.shift).any())
    drawn = style.figure(layer_rows.height(len(rows)))
    grid = drawn.subplots(1, 3 if compared else 2, sharey=True)
    colours = [theme.critical if found.flat[i] else theme.series[0] for i in rows]
    _levels(grid[0], found, rows, colours, theme)
    layer_rows.points(grid[1], found.worst_z[rows], colours)
    finite = found.worst_z[rows][np.isfinite(found.worst_z[rows])]
    style.scale(grid[1], finite, axis="x")
    grid[1].axvline(5.0, color=theme.muted, lw=1.0, ls="--")
    grid[1].set_xlabel("furthest value (standard deviations)")
    if compared:
        layer_rows.points(grid[2], found.shift[rows], colours)
        grid[2].axvline(0.0, color=theme.muted, lw=1.0)
        grid[2].set_xlabel("shift against training (standard deviations)")
    names = [n or "all" for n in (found.names[i] for i in rows.tolist())]
    layer_rows.name_rows(grid[0], names)
    return drawn


def _levels(
    axes: Axes, found: Channels, rows: layer_rows.Rows, colours: list[str], theme: style.Theme
) -> None:
    """Means with bars of one standard deviation; below them, those of the training data."""
    at = np.arange(len(rows))
    if np.isfinite(found.shift).any():
        mean, std, own = found.train_mean[rows], found.train_std[rows], theme.series[1]
        axes.errorbar(mean, at + 0.25, xerr=std, fmt="none", ecolor=own, lw=1.4)
        axes.plot(mean, at + 0.25, "|", color=own, ms=6, label="training data")
    low, high = (found.mean + sign * found.std for sign in (-1, 1))
    axes.hlines(at, low[rows], high[rows], colors=colours, lw=1.4, alpha=0.7)
    axes.scatter(found.mean[rows], at, s=22, c=colours, label="data", zorder=3)
    axes.set_xlabel("mean ± standard deviation (unit of the input)")
    if np.isfinite(found.shift).any():
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)


def channels_caption(result: DataQuality) -> str:
    """What is red, and how many are shown."""
    found = result.channels
    count = 0 if found is None else len(found.names)
    shown = 0 if found is None else len(worst_channels(found))
    words = "Red channels never change. The dashed line marks 5 standard deviations."
    return words + layer_rows.cut_note(shown, count)


# ---------------------------------------------------------------------- lags


def lags(result: DataQuality, theme: style.Theme) -> Figure | None:
    """Correlation of held-out predictions with the targets at each lag."""
    having = [a for a in result.alignment if np.isfinite(a.probe).any()]
    if not having:
        return None
    drawn = style.figure(3.4)
    grid = drawn.subplots(1, len(having), sharey=True, squeeze=False)[0]
    for axes, found in zip(grid, having, strict=True):
        axes.axhline(0.0, color=theme.muted, lw=1.0)
        axes.axvline(0, color=theme.muted, lw=1.0, ls="--")
        axes.plot(found.lags, found.probe, "o-", color=theme.series[0], ms=5, label="linear probe")
        if np.isfinite(found.model).any():
            axes.plot(found.lags, found.model, "v-", color=theme.series[1], ms=5, label="model")
        noise = 2.6 / np.sqrt(np.maximum(1, found.pairs))
        axes.fill_between(found.lags, -noise, noise, color=theme.muted, alpha=0.15, lw=0, label="by chance")
        axes.set_xticks(found.lags)
        axes.set_xlabel("the target is that of the sample so many places later")
        axes.set_title("training data" if found.split == "train" else "data")
    grid[0].set_ylabel("correlation with the targets")
    grid[0].legend(loc="best")
    return drawn


def lags_caption(_: DataQuality) -> str:
    """How to read it."""
    return (
        "Held-out predictions against targets that were shifted along the order of the samples. The peak "
        "belongs at 0; one elsewhere says that inputs and targets were paired wrongly, unless neighbours "
        "are alike."
    )
