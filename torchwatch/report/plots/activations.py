"""Activation health: dead units and zero outputs of each layer, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import heatmap, style
from torchwatch.report.trace import LayerMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.report import Report

TITLE = "Activation health"
_LOOKS = {
    "dead": heatmap.Look("Dead units", "fraction of units", "viridis", logarithmic=False, compact=True),
    "zero": heatmap.Look("Zero outputs", "fraction of values", "viridis", logarithmic=False, compact=True),
}


def caption(report: Report) -> str:
    """The difference between dead and zero."""
    words = (
        "Left: units that gave nothing for any sample of the window; they no longer learn. Right: single "
        "values that are "
        "zero, which is sparsity and no fault by itself (a healthy ReLU has about half). Grey was not "
        "measured."
    )
    return words + heatmap.cut_note(next(iter(_maps(report).values())))


def draw(report: Report, theme: style.Theme) -> Figure | None:
    """Both maps side by side over the same rows."""
    maps = _maps(report)
    if not maps:
        return None
    rows = max(len(m.names) for m in maps.values())
    drawn = style.figure(heatmap.height(rows) + 0.5)
    grid = drawn.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (kind, layers) in zip(grid, maps.items(), strict=True):
        heatmap.draw(drawn, axes, layers, _LOOKS[kind], theme, report.trace.last_step)
    heatmap.name_rows(grid[0], next(iter(maps.values())), report.layer_severity, theme)
    for axes in grid[1:]:
        axes.tick_params(axis="y", length=0)
    return drawn


def _maps(report: Report) -> dict[str, LayerMap]:
    """The maps that exist, brought to the same rows, the worst ones where there are too many."""
    present = {k: report.trace.maps[k] for k in _LOOKS if k in report.trace.maps}
    if not present:
        return {}
    order = {name: i for i, name in enumerate(report.layer_names)}
    names = sorted({n for m in present.values() for n in m.names}, key=lambda n: order.get(n, len(order)))
    aligned = {k: _aligned(m, names) for k, m in present.items()}
    first = next(iter(aligned.values()))
    kept = heatmap.worst_rows(first, report.layer_severity, high_is_bad=True).names
    rows = [names.index(n) for n in kept]
    return {k: m.rows(rows) for k, m in aligned.items()}


def _aligned(layers: LayerMap, names: list[str]) -> LayerMap:
    values = np.full((len(names), layers.values.shape[1]), np.nan)
    bad = np.zeros(values.shape, bool)
    for i, name in enumerate(layers.names):
        values[names.index(name)], bad[names.index(name)] = layers.values[i], layers.bad[i]
    return LayerMap(tuple(names), layers.edges, values, bad, len(names))
