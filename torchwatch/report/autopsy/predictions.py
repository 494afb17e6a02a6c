"""Predictions: their scores, predicted against target, residuals, and what classes are mistaken for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Bullets, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.results.predictions import ClassScores, NumberScores, Predictions

_ROWS = 20
_PANELS = 4
_MANY = 1500
_COUNTS_UP_TO = 12


def blocks(result: Predictions) -> list[Block]:
    """Scores as a table, then the plots."""
    found: list[Block] = []
    if result.numbers is not None:
        found += _number_blocks(result.numbers)
    if result.classes is not None:
        found += _class_blocks(result.classes)
    return [*found, *(Plot(d.name) for d in DRAWINGS)]


def _worst_outputs(scores: NumberScores, limit: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """By NRMSE, the worst first; in their own order where all are shown."""
    if len(scores.names) <= limit:
        return np.arange(len(scores.names))
    return np.argsort(-np.where(np.isfinite(scores.nrmse), scores.nrmse, -np.inf), kind="stable")[:limit]


def _number_blocks(s: NumberScores) -> list[Block]:
    head = ["output", "samples", "RMSE", "NRMSE", "MAE", "R²", "r", "slope", "std ratio", "favours"]
    fields = (s.rmse, s.nrmse, s.mae, s.r2, s.pearson, s.slope, s.std_ratio)
    worst = _worst_outputs(s, _ROWS)
    rows = [
        [s.names[i], f"{s.count[i]:,}", *(number(float(f[i])) for f in fields), s.readings[i]] for i in worst
    ]
    found: list[Block] = [Table(head, rows, numeric=frozenset(range(1, 9)))]
    if len(worst) < len(s.names):
        found.append(Text(f"The worst {len(worst)} of {len(s.names):,} outputs by NRMSE.", quiet=True))
    i = int(worst[0])
    spread = (
        f"Mean ± standard deviation{'' if len(s.names) == 1 else f' of {s.names[i]}'}: predictions "
        f"{number(s.prediction_mean[i])} ± {number(s.prediction_std[i])}, targets "
        f"{number(s.target_mean[i])} ± {number(s.target_std[i])}."
    )
    words = (
        "NRMSE is RMSE by the targets' standard deviation: 1 is what their mean gets. Slope is that of "
        "targets on predictions, r·σy/σp: 1 is calibrated, far above 1 is collapse. The best predictor of a "
        "weak signal has std ratio = r and slope 1."
    )
    return [*found, Text(spread), Text(words, quiet=True)]


def _class_blocks(s: ClassScores) -> list[Block]:
    calibration = (
        f"{number(s.ece)} (calibrated confidences would stay below {number(s.ece_by_chance)}); mean "
        f"confidence {percent(s.confidence)}"
    )
    facts = [
        ("Accuracy", f"{percent(s.accuracy)} of {s.count:,} decisions"),
        ("Balanced accuracy", percent(s.balanced_accuracy)),
        ("F1, macro", number(s.f1_macro)),
        ("Negative log-likelihood", f"{number(s.nll)} nats"),
        ("Expected calibration error", calibration),
    ]
    worst = np.argsort(np.where(np.isfinite(s.f1), s.f1, np.inf), kind="stable")[:_ROWS]
    if len(s.names) <= _ROWS:
        worst = np.arange(len(s.names))
    rows = [
        [
            shortened(s.names[i]), f"{s.support[i]:,}", f"{s.predicted[i]:,}",
            *(number(float(f[i])) for f in (s.precision, s.recall, s.f1)),
        ]
        for i in worst
    ]  # fmt: skip
    head = ["class" if s.confusion is not None else "label", "true", "predicted", "precision", "recall", "F1"]
    found: list[Block] = [Bullets(facts), Table(head, rows, frozenset(range(1, 6)), frozenset({0}))]
    if len(rows) < len(s.names):
        found.append(Text(f"The worst {len(rows)} of {len(s.names):,} by F1.", quiet=True))
    return found


# ---------------------------------------------------------------------- predicted against target


def _panels(result: Predictions) -> list[int]:
    """Columns of the kept outputs that are drawn: the worst by NRMSE that have two points."""
    scores = result.numbers
    if scores is None:
        return []
    chosen = [c for c, output in enumerate(result.shown) if scores.count[output] >= 2]
    chosen.sort(key=lambda c: -np.nan_to_num(scores.nrmse[result.shown[c]], nan=-1.0))
    return chosen[:_PANELS]


def _draw_scatter(result: Predictions, theme: style.Theme) -> Figure | None:
    """Left target over prediction, right residual over prediction, one row per output."""
    scores, columns = result.numbers, _panels(result)
    if scores is None or not columns:
        return None
    drawn = style.figure(0.4 + (4.4 if len(columns) == 1 else 3.7) * len(columns))
    grid = drawn.subplots(len(columns), 2, squeeze=False)
    for (left, right), column in zip(grid, columns, strict=True):
        output = int(result.shown[column])
        p, y = result.predictions[:, column], result.targets[:, column]
        fine = dots.finite(p, y)
        slope = float(scores.slope[output])
        _against_target(left, p[fine], y[fine], slope, theme)
        _residuals(right, p[fine], (y - p)[fine], theme)
        named = "" if len(scores.names) == 1 else f"{style.label(scores.names[output], 40)}, "
        left.set_title(f"{named}slope {number(slope)}, r = {number(float(scores.pearson[output]))}")
    handles: dict[str, Any] = {}
    for axes in grid[0]:
        drawings, words = axes.get_legend_handles_labels()
        handles |= {str(w): d for w, d in zip(words, drawings, strict=True)}
    drawn.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=4)
    return drawn


def _cloud(axes: Axes, x: dots.Floats, y: dots.Floats, theme: style.Theme) -> None:
    """Points; a density where they would hide one another."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if x.size > _MANY and np.ptp(x) > 0 and np.ptp(y) > 0:
        image = axes.hexbin(
            x, y, gridsize=45, bins="log", mincnt=1, cmap=style.colormap("viridis", theme), linewidths=0
        )
        bar = axes.figure.colorbar(image, ax=axes, label="samples per cell", pad=0.01, aspect=30)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(style.short))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        return
    alpha = float(np.clip(10 / np.sqrt(max(x.size, 1)), 0.25, 0.9))
    axes.plot(x, y, "o", color=theme.series[0], ms=3.2, alpha=alpha, mew=0, label="samples")


def _against_target(axes: Axes, p: dots.Floats, y: dots.Floats, slope: float, theme: style.Theme) -> None:
    _cloud(axes, p, y, theme)
    low, high = min(p.min(), y.min()), max(p.max(), y.max())
    pad = 0.04 * (high - low) or 1.0
    limits = (low - pad, high + pad)
    axes.plot(limits, limits, color=theme.muted, ls="--", lw=1.1, label="target = prediction")
    if np.isfinite(slope):
        ends = np.array([p.min(), p.max()])
        line = y.mean() + slope * (ends - p.mean())
        axes.plot(ends, line, color=theme.series[1], lw=2, label="targets on predictions, best line")
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_xlabel("prediction (unit of the target)")
    axes.set_ylabel("target")
    _numbers_plain(axes)


def _residuals(axes: Axes, p: dots.Floats, residual: dots.Floats, theme: style.Theme) -> None:
    _cloud(axes, p, residual, theme)
    axes.axhline(0, color=theme.muted, ls="--", lw=1.1)
    middle, mean, half = dots.binned(p, residual)
    if middle.size > 1 and np.ptp(p) > 0:
        axes.errorbar(
            middle, mean, half, color=theme.series[3], lw=1.6, marker="o", ms=4, capsize=2,
            label="mean residual, 95 %",
        )  # fmt: skip
    axes.set_xlabel("prediction (unit of the target)")
    axes.set_ylabel("residual (target − prediction)")
    _numbers_plain(axes)


def _numbers_plain(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(FuncFormatter(style.short))


def _scatter_caption(result: Predictions) -> str:
    columns, total = _panels(result), 0 if result.numbers is None else len(result.numbers.names)
    words = (
        "Left: both axes have the same range, so that predictions that vary too little stand as a narrow, "
        "steep band. Right: a calibrated model has mean residual 0 at every prediction. Seen by target "
        "instead, any model of a weak signal would seem biased."
    )
    return words + dots.cut_note(len(columns), total, "outputs by NRMSE")


# ---------------------------------------------------------------------- outputs


def _draw_outputs(result: Predictions, theme: style.Theme) -> Figure | None:
    """NRMSE of each output, the worst first."""
    s = result.numbers
    if s is None or len(s.names) < 2 or not np.isfinite(s.nrmse).any():
        return None
    order = np.argsort(-np.where(np.isfinite(s.nrmse), s.nrmse, -np.inf), kind="stable")[: dots.ROWS]
    order = order[np.isfinite(s.nrmse[order])]
    drawn = style.figure(dots.height(len(order)))
    axes = drawn.subplots()
    nothing = np.full(len(order), np.nan)
    dots.draw_dots(axes, [s.names[i] for i in order], s.nrmse[order], nothing, nothing, theme)
    style.scale(axes, s.nrmse[order], axis="x")
    axes.set_xlabel("NRMSE (RMSE / standard deviation of the targets)")
    dots.reference(axes, 1.0, "mean of the targets", theme)
    return drawn


def _outputs_caption(result: Predictions) -> str:
    total = 0 if result.numbers is None else len(result.numbers.names)
    words = "Beyond the dashed line an output is worse than the mean of its targets."
    return words + dots.cut_note(min(total, dots.ROWS), total, "outputs")


# ---------------------------------------------------------------------- classes


def _draw_confusion(result: Predictions, theme: style.Theme) -> Figure | None:
    """Each row a true class, as shares of its decisions."""
    from matplotlib.colors import PowerNorm

    s = result.classes
    if s is None or s.confusion is None or not s.confusion.size:
        return None
    count = len(s.confusion_names)
    drawn = style.figure(float(np.clip(2.0 + 0.42 * count, 3.6, 9.5)))
    axes = drawn.subplots()
    total = s.confusion.sum(1, keepdims=True)
    shares = np.where(total > 0, s.confusion / np.maximum(total, 1), np.nan)
    norm = PowerNorm(1.0 if count <= _COUNTS_UP_TO else 0.5, vmin=0, vmax=1)  # rare mistakes stay visible
    image = axes.imshow(shares, cmap=style.colormap("cividis", theme), norm=norm, aspect="auto")
    names = [style.label(n, 24) for n in s.confusion_names]
    size = 8 if count <= 20 else 6
    axes.set_xticks(range(count), names, rotation=90 if count > 6 else 0, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    if count <= _COUNTS_UP_TO:
        for i, row in enumerate(s.confusion):
            for j, cell in enumerate(row):
                ink = "#000000" if shares[i, j] > 0.55 else "#ffffff"
                colour = ink if np.isfinite(shares[i, j]) else theme.ink
                axes.text(j, i, f"{cell:,}", ha="center", va="center", fontsize=8, color=colour)
    drawn.colorbar(image, ax=axes, label="share of the true class", pad=0.02)
    return drawn


def _confusion_caption(result: Predictions) -> str:
    s = result.classes
    words = "Rows add up to 1; the diagonal is each class's recall. Grey rows: the class does not occur."
    if s is not None and "others" in s.confusion_names[-1:] and len(s.confusion_names) < len(s.names):
        words += f" The {len(s.confusion_names) - 1} most frequent of {len(s.names):,} classes are shown."
    return words


DRAWINGS = (
    Drawing("predictions_scatter", "Targets and residuals by prediction", _draw_scatter, _scatter_caption),
    Drawing("predictions_outputs", "Error of each output", _draw_outputs, _outputs_caption),
    Drawing("predictions_confusion", "Confusion matrix", _draw_confusion, _confusion_caption),
)
