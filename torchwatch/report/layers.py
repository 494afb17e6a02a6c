"""The table of layers, worst first."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report.document import Block, Table, Text
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.report.report import Report
    from torchwatch.report.trace import Floats, LayerMap

_MOST = 40
_WEIGHT = {"critical": 100, "warning": 10, "info": 1}
_HEAD = [
    "layer",
    "type",
    "parameters",
    "issues",
    "gradient RMS, first",
    "last",
    "update ratio",
    "dead",
    "zero",
]


def layer_table(report: Report) -> list[Block]:
    """One row per layer: those with the worst issues first, then in the order of the forward pass."""
    layout = report.found.layout
    if layout is None or not layout.layers:
        return [Text("The file holds no layout of the model, so nothing is known of its layers.")]
    issues = _issues(report)
    place = {name: i for i, name in enumerate(report.layer_names)}
    ordered = sorted(
        layout.layers,
        key=lambda x: (-sum(_WEIGHT.get(s, 0) for s, _ in issues[x.name]), place.get(x.name, 0)),
    )
    maps = report.trace.maps
    rows = []
    for layer in ordered[:_MOST]:
        first, last = _ends(maps.get("gradients"), layer.name)
        rows.append(
            [
                layer.name or "(model)",
                layer.type,
                f"{layer.parameters:,}",
                ", ".join(check for _, check in issues[layer.name]) or "–",
                first,
                last,
                _ends(maps.get("updates"), layer.name)[1],
                _percent(maps.get("dead"), layer.name),
                _percent(maps.get("zero"), layer.name),
            ]
        )
    table = Table(_HEAD, rows, numeric=frozenset({2, 4, 5, 6, 7, 8}), names=frozenset({0}))
    words = "Layers with the worst issues first, then as the forward pass calls them; – was not measured."
    if len(ordered) > _MOST:
        words += f" Shown are {_MOST} of {len(ordered)}."
    return [Text(words, quiet=True), table]


def _issues(report: Report) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for issue in report.diagnosis.issues:
        if issue.layer is not None:
            found[issue.layer].append((issue.severity, issue.check))
    return found


def _row(layers: LayerMap | None, name: str) -> Floats:
    """The layer's measured values over time."""
    if layers is None or name not in layers.names:
        return np.empty(0)
    row = layers.values[layers.names.index(name)]
    return np.asarray(row[np.isfinite(row)])


def _ends(layers: LayerMap | None, name: str) -> tuple[str, str]:
    """First and last measured value; NaN where the layer's last measurement was one."""
    row = _row(layers, name)
    if layers is not None and name in layers.names and layers.bad[layers.names.index(name), -1]:
        return (number(float(row[0])) if len(row) else "–", "NaN or ∞")
    return (number(float(row[0])), number(float(row[-1]))) if len(row) else ("–", "–")


def _percent(layers: LayerMap | None, name: str) -> str:
    row = _row(layers, name)
    return f"{100 * row[-1]:.0f} %" if len(row) else "–"
