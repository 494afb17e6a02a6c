"""Attention: heads and what they do, stream pairs, right against wrong samples, classes, single samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing, _maps
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.autopsy._attention_tables import most_focused, tables
from torchwatch.report.document import Block, Plot, Text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.attention import Attention

_HEADS = dots.ROWS
_PAIRS = 12


def blocks(result: Attention) -> list[Block]:
    """What was seen, the pictures and the tables."""
    heads = sum(len(layer.entropy) for layer in result.layers)
    intro = (
        f"{len(result.layers)} attentions with {heads} heads, seen on {result.samples.index.size:,} samples. "
        "Entropy is divided by the logarithm of the number of keys that a query may attend to: 1 is "
        "uniform, 0 is one key. Sparsity is the share of those keys with less than 1/100 of a uniform "
        "weight. Heads are called focused (largest weight above 0.7, entropy below 0.4, sparsity above 80 %) "
        "or diffuse (below 0.4, above 0.8, below 30 %), else mixed."
    )
    shown: list[Block] = [Text(intro), Plot("attention_heads"), *tables(result)]
    return [*shown, Plot("attention_contributions"), Plot("attention_maps"), Plot("attention_alignment")]


# ---------------------------------------------------------------------- heads


def _draw_heads(result: Attention, theme: Theme) -> Figure | None:
    """Entropy of each head, attentions as rows."""
    layers = most_focused(result)
    widest = max(len(layer.entropy) for layer in layers)
    values = np.full((len(layers), widest), np.nan)
    for i, layer in enumerate(layers):
        values[i, : len(layer.entropy)] = layer.entropy
    if not np.isfinite(values).any():
        return None
    drawn = style.figure(dots.height(len(layers)) + 0.3)
    axes = drawn.subplots()
    image = axes.pcolormesh(
        np.arange(widest + 1) - 0.5,
        np.arange(len(layers) + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=style.colormap("cividis", theme),
        vmin=0.0,
        vmax=1.0,
    )
    axes.set_yticks(range(len(layers)), [style.label(layer.name, 44) for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.grid(visible=False)
    _whole_ticks(axes)
    axes.set_xlabel("head")
    drawn.colorbar(image, ax=axes, pad=0.01).set_label("entropy / log(valid keys)")
    return drawn


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, integer=True, min_n_ticks=1))


def _caption_of_heads(result: Attention) -> str:
    words = "Mean over samples and queries: 1 is uniform over the valid keys, 0 is all weight on one key."
    if len(result.layers) > _HEADS:
        words += f" The {_HEADS} of {len(result.layers)} attentions with the lowest entropy are shown."
    return words


# ---------------------------------------------------------------------- contributions


def _ranked(result: Attention) -> list[tuple[str, int, float, float]]:
    """Attention, head, change of the output, change of the error; the largest change first."""
    rows = [
        (layer.name, head, float(value), float(layer.error_change[head]))
        for layer in result.layers
        for head, value in enumerate(layer.contribution)
        if np.isfinite(value)
    ]
    return sorted(rows, key=lambda row: -row[2])


def _draw_contributions(result: Attention, theme: Theme) -> Figure | None:
    """Change of the output and of the error without a head."""
    rows = _ranked(result)[:_HEADS]
    if not rows:
        return None
    names = [f"{style.label(name, 34)}, head {head}" for name, head, _, _ in rows]
    drawn = style.figure(dots.height(len(rows)) + 0.2)
    errors = np.array([row[3] for row in rows])
    panels = drawn.subplots(1, 2 if np.isfinite(errors).any() else 1, sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))
    panels[0].barh(places, [row[2] for row in rows], color=theme.series[0], height=0.7)
    panels[0].set_yticks(places, names)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    panels[0].set_xlabel(_lines(f"change without the head ({result.contribution_of})"))
    panels[0].set_xlim(left=0)
    if len(panels) > 1:
        panels[1].barh(
            places, errors, color=[theme.series[1] if e > 0 else theme.series[4] for e in errors], height=0.7
        )
        panels[1].axvline(0, color=theme.ink, lw=0.8)
        panels[1].set_xlabel("change of the mean error\n(positive: the head helps)")
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
        axes.locator_params(axis="x", nbins=5)
    return drawn


def _lines(text: str) -> str:
    head, _, tail = text.partition(" (")
    return f"{head}\n({tail}" if tail else text


def _caption_of_contributions(result: Attention) -> str:
    rows = len(_ranked(result))
    heads = sum(len(layer.entropy) for layer in result.layers)
    words = f"Each head's output set to zero, on {result.contribution_samples} samples."
    if rows < heads:
        words += f" {rows} of {heads} heads were tried."
    if rows > _HEADS:
        words += f" The {_HEADS} of {rows} heads that change most are shown."
    return words


# ---------------------------------------------------------------------- maps


def _draw_maps(result: Attention, theme: Theme) -> Figure | None:
    """Mean weights of up to six heads."""
    maps = result.maps
    if not maps:
        return None
    columns = min(3, len(maps))
    lines = -(-len(maps) // columns)
    drawn = style.figure(3.5 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_axis_off()
    for shown, axes in zip(maps, grid.flat, strict=False):
        rows, keys = shown.weights.shape
        x = np.arange(keys + 1) * shown.key_width - 0.5
        y = np.arange(rows + 1) * shown.query_width - 0.5
        image = _maps.mesh(axes, x, y, shown.weights, theme, signed=False)
        axes.set_title(f"{style.label(shown.name, 28)}\nhead {shown.head}, {shown.why}", fontsize=8.5)
        axes.set_xlabel("key")
        axes.set_ylabel("query")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        drawn.colorbar(image, ax=axes, shrink=0.85, pad=0.02).set_label("weight")
    return drawn


def _caption_of_maps(result: Attention) -> str:
    words = "Weights, mean over samples; grey cells are outside of the mask in every sample."
    if any(m.query_width > 1 or m.key_width > 1 for m in result.maps):
        words += " Neighbouring places are averaged to 64 × 64 cells at most."
    return words


# ---------------------------------------------------------------------- alignment


def _draw_alignment(result: Attention, theme: Theme) -> Figure | None:
    """Alignment of each sample, a row per stream pair, right and wrong samples apart."""
    pairs = [p for p in result.pairs if np.isfinite(p.alignment).any()][:_PAIRS]
    if not pairs:
        return None
    drawn = style.figure(1.3 + 0.6 * max(2, len(pairs)))
    axes = drawn.subplots()
    correct = result.samples.correct
    known = np.isfinite(correct).any()
    sides = [("correct", correct > 0), ("incorrect", correct == 0)] if known else [("", np.isnan(correct))]
    for i, pair in enumerate(pairs):
        for side, (name, rows) in enumerate(sides):
            values = pair.alignment[rows & np.isfinite(pair.alignment)]
            offset = (side - (len(sides) - 1) / 2) * 0.36
            # spread evenly by rank, so that points do not hide one another
            spread = (np.arange(values.size) % 7 - 3) / 30
            axes.plot(
                values, i + offset + spread, "os"[side], color=theme.series[side], ms=3.5, alpha=0.5, mew=0,
                label=name if name and not i else None,
            )  # fmt: skip
            if values.size:
                axes.plot([values.mean()] * 2, [i + offset - 0.15, i + offset + 0.15], color=theme.ink, lw=2)
    for border in (0.2, 0.6):
        axes.axvline(border, color=theme.muted, lw=0.9, ls="--")
    axes.set_yticks(range(len(pairs)), [f"{style.label(p.a, 20)} ↔ {style.label(p.b, 20)}" for p in pairs])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(-1.02, 1.02)
    axes.set_xlabel("alignment: correlation of a→b with the transpose of b→a")
    if known:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return drawn


def _caption_of_alignment(result: Attention) -> str:
    words = (
        "One point per sample, the line is their mean. Above 0.6 agreement is strong, below 0.2 a conflict."
    )
    if len(result.pairs) > _PAIRS:
        words += f" The first {_PAIRS} of {len(result.pairs)} pairs are shown."
    return words


DRAWINGS = (
    Drawing("attention_heads", "Entropy of the heads", _draw_heads, _caption_of_heads),
    Drawing(
        "attention_contributions", "What heads contribute", _draw_contributions, _caption_of_contributions
    ),
    Drawing("attention_maps", "Where heads look", _draw_maps, _caption_of_maps),
    Drawing("attention_alignment", "Alignment of streams", _draw_alignment, _caption_of_alignment),
)
