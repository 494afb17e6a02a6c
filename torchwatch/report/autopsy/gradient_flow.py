"""Gradient flow: gradients and weights of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _layer_rows as layer_rows
from torchwatch.report.document import Block, Bullets, Plot, Table, Text
from torchwatch.text import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.results.gradient_flow import GradientFlow

_RANK = {"nonfinite": 5.0, "zero": 4.0, "vanishing": 3.0, "unreached": 2.0, "flows": 1.0, "frozen": 0.0}


def blocks(result: GradientFlow) -> list[Block]:
    """Facts, the layers, the picture."""
    loss = "the loss of the training" if result.own_loss else "the usual loss of the task"
    facts = [
        ("Layers with a gradient", f"{result.with_gradient} of {result.trainable} that want one"),
        ("First over last layer", f"{number(result.first_last_ratio)} (gradient RMS)"),
        (
            "Loss",
            f"{number(result.loss)} on average over {result.batches} batches of {result.batch_size} ({loss})",
        ),
    ]
    rows = _rows(result)
    found: list[Block] = [Bullets(facts), _table(result, rows)]
    if len(rows) < len(result.layers):
        found.append(Text(layer_rows.cut_note(len(rows), len(result.layers)).strip(), quiet=True))
    words = (
        "Layers in the order of their calls. Agreement is the norm of the batches' mean gradient over their "
        "mean norm: 1 where all pull one way, about 1/√batches where they have nothing in common, as at the "
        "end of a training or with labels of noise."
    )
    return [*found, Text(words, quiet=True), *(Plot(d.name) for d in DRAWINGS)]


def _table(result: GradientFlow, rows: layer_rows.Rows) -> Table:
    head = [
        "layer", "kind", "weights", "gradient norm", "gradient RMS", "weight norm", "ratio", "agreement",
        "state",
    ]  # fmt: skip
    fields = (
        result.gradient_norm, result.gradient_rms, result.weight_norm, result.ratio, result.agreement,
    )  # fmt: skip
    cells = [
        [
            result.layers[i],
            result.kinds[i],
            f"{result.parameters[i]:,}",
            *(number(float(f[i])) for f in fields),
            result.states[i],
        ]
        for i in rows
    ]
    return Table(head, cells, frozenset(range(2, 8)), frozenset({0}))


def _rows(result: GradientFlow) -> layer_rows.Rows:
    """The worst: by state, then by how small the gradient is."""
    small = -np.log10(np.where(result.gradient_rms > 0, result.gradient_rms, 1e-30)) / 100
    return layer_rows.worst(np.array([_RANK[s] for s in result.states]) + np.nan_to_num(small))


def _draw(result: GradientFlow, theme: style.Theme) -> Figure | None:
    if not np.isfinite(result.gradient_rms).any():
        return None
    rows = _rows(result)
    drawn = style.figure(layer_rows.height(len(rows)))
    left, right = drawn.subplots(1, 2, sharey=True)
    bad = {
        "zero": theme.critical,
        "nonfinite": theme.critical,
        "vanishing": theme.warning,
        "unreached": theme.warning,
    }
    colours = [bad.get(result.states[i], theme.series[0]) for i in rows]
    root = np.sqrt(np.maximum(1, result.parameters[rows]))
    layer_rows.points(left, result.gradient_rms[rows], colours, result.gradient_spread[rows] / root)
    layer_rows.points(right, result.ratio[rows], colours)
    layer_rows.name_rows(left, [result.layers[i] for i in rows])
    for axes, values, title in (
        (left, result.gradient_rms[rows], "gradient RMS (loss per unit of weight)"),
        (right, result.ratio[rows], "gradient norm / weight norm"),
    ):
        style.scale(axes, values[np.isfinite(values)], axis="x", wide=8.0)
        axes.set_xlabel(title)
        if not (values > 0).any():
            axes.set_xlim(-0.03, 1.0)  # nothing but zeros: no scale of its own
    left.set_title("Gradient")
    right.set_title("Gradient against weights")
    right.tick_params(axis="y", length=0)
    return drawn


def _caption(result: GradientFlow) -> str:
    words = (
        "Each layer's gradient, first layer at the top; bars are ± one standard deviation over batches. "
        "Points that move left towards the top are gradients that vanish. Red: exactly 0 or not finite; "
        "amber: vanishing or no part in the loss. Layers without a point are frozen."
    )
    return words + layer_rows.cut_note(len(_rows(result)), len(result.layers))


DRAWINGS = (Drawing("gradient_flow", "Gradients by layer", _draw, _caption),)
