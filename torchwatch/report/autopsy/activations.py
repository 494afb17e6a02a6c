"""Activations: level, silent and saturated units, and geometry of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _layer_rows as layer_rows
from torchwatch.report.document import Block, Fold, Plot, Table, Text
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.results.activations import Activations

_NAMED = 30


def blocks(result: Activations) -> list[Block]:
    """The layers, which units are dead, the picture."""
    rows = _rows(result)
    names = result.names()
    head = ["layer", "kind", "mean", "std", "zeros", "dead", "dormant", "saturated", "rank", "spread", "CKA"]
    table = [
        [
            names[i],
            result.kinds[i],
            number(float(result.mean[i])),
            number(float(result.std[i])),
            *(
                _share(float(f[i]))
                for f in (
                    result.zero_fraction,
                    result.dead_fraction,
                    result.dormant_fraction,
                    result.saturated_fraction,
                )
            ),
            _rank(result, i),
            _plain(float(result.sample_spread[i])),
            _plain(float(result.cka[i])),
        ]
        for i in rows.tolist()
    ]
    found: list[Block] = [Table(head, table, frozenset(range(2, 11)), frozenset({0}))]
    if len(rows) < len(names):
        found.append(Text(layer_rows.cut_note(len(rows), len(names)).strip(), quiet=True))
    words = (
        f"Over {result.samples:,} samples, in the order of the calls. Dead: units (channels of images, else "
        "features) that stay at 0 for every sample, after activations alone; dormant: mean activity at most "
        "2.5 % of the layer's. Zeros are sparsity, no fault. Rank: effective rank of what is possible. "
        "Spread: standard deviation across samples over the rms, 0 where every sample gets the same. CKA: "
        "similarity to the next row."
    )
    return [*found, Text(words, quiet=True), *_dead_units(result), *(Plot(d.name) for d in DRAWINGS)]


def _share(value: float) -> str:
    return percent(value) if np.isfinite(value) else ""


def _plain(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) else ""


def _rank(result: Activations, row: int) -> str:
    value = result.effective_rank[row]
    return f"{value:.1f} of {result.most_rank[row]}" if np.isfinite(value) else ""


def _dead_units(result: Activations) -> list[Block]:
    """Which units are dead, folded."""
    having = [i for i, units in enumerate(result.dead_units) if units.size]
    if not having:
        return []
    names = result.names()
    rows = [
        [
            names[i],
            f"{round(result.dead_fraction[i] * result.units[i])} of {result.units[i]}",
            ", ".join(str(u) for u in result.dead_units[i][:_NAMED])
            + (" …" if result.dead_units[i].size > _NAMED else ""),
        ]
        for i in having[: layer_rows.MOST_ROWS]
    ]
    return [Fold("Dead units by index", [Table(["layer", "dead", "units"], rows, names=frozenset({0}))])]


def _rows(result: Activations) -> layer_rows.Rows:
    """The worst: not finite, the same for all samples, dead, dormant, saturated."""
    shares = [result.dead_fraction, result.dormant_fraction, result.saturated_fraction]
    badness = np.nan_to_num(np.array(shares)).sum(0) + 10.0 * (result.nonfinite > 0)
    return layer_rows.worst(badness + 5.0 * (result.sample_spread < 1e-5))


def _draw(result: Activations, theme: style.Theme) -> Figure | None:
    if not result.layers:
        return None
    rows = _rows(result)
    names = [result.names()[i] for i in rows.tolist()]
    drawn = style.figure(layer_rows.height(len(rows)) + 0.2)
    level, shares, geometry = drawn.subplots(1, 3, sharey=True, width_ratios=[1, 1.2, 1.2])
    rms = np.sqrt(np.square(result.mean[rows]) + np.square(result.std[rows]))
    broken = result.nonfinite[rows] > 0
    layer_rows.points(level, rms, [theme.critical if b else theme.series[0] for b in broken])
    style.scale(level, rms[np.isfinite(rms)], axis="x", wide=8.0)
    level.set_xlabel("rms of the output")
    level.set_title("Level")
    _several(
        shares,
        {
            "dead": (result.dead_fraction[rows], theme.critical, "s"),
            "dormant": (result.dormant_fraction[rows], theme.warning, "^"),
            "saturated": (result.saturated_fraction[rows], theme.series[3], "D"),
            "zeros": (result.zero_fraction[rows], theme.muted, "|"),
        },
    )
    layer_rows.share_axis(shares, "share of units or entries")
    with np.errstate(all="ignore"):
        rank = result.effective_rank[rows] / result.most_rank[rows]
    _several(
        geometry,
        {
            "rank / possible": (rank, theme.series[0], "o"),
            "CKA with next": (result.cka[rows], theme.series[1], "v"),
        },
    )
    layer_rows.share_axis(geometry, "share, similarity")
    layer_rows.name_rows(level, names)
    for axes in (shares, geometry):
        axes.tick_params(axis="y", length=0)
    return drawn


def _several(axes: Axes, series: dict[str, tuple[layer_rows.Floats, str, str]]) -> None:
    for name, (values, colour, marker) in series.items():
        if np.isfinite(values).any():
            axes.plot(
                values,
                np.arange(len(values)),
                marker,
                color=colour,
                ms=5.5,
                mew=1.6 if marker == "|" else 0,
                label=name,
            )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, handletextpad=0.1, columnspacing=0.8
        )


def _caption(result: Activations) -> str:
    words = (
        "First layer at the top. Dead and dormant units are judged after activations, saturation where an "
        "output has bounds. A rank near 0 means that all samples lie in few directions; a CKA near 1 that "
        "the next layer adds little."
    )
    return words + layer_rows.cut_note(len(_rows(result)), len(result.layers))


DRAWINGS = (Drawing("activations", "Activations by layer", _draw, _caption),)
