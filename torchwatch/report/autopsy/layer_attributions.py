"""Layer attributions: maps of convolutions, units that carry the output, attention rolled out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing, _maps
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Bullets, Plot, Table, Text
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.layer_attributions import GradCam, LayerAttributions

_UNITS = 12
_MOST = 6
"""Layers of a picture; more were named by the user, and the first of them are drawn."""


def blocks(result: LayerAttributions) -> list[Block]:
    """What was explained, the pictures, conductance as a table, what could not be run."""
    intro = f"Explained is {result.explained}, on {result.samples:,} samples."
    if result.conductance:
        intro += f" Conductance is that of the change from {result.baseline}."
    shown: list[Block] = [Text(intro), Plot("layer_attributions_gradcam")]
    if result.conductance:
        shown.append(_conductance(result))
    shown += [Plot("layer_attributions_conductance"), Plot("layer_attributions_rollout")]
    if result.not_run:
        shown.append(Bullets([(what, why) for what, why in result.not_run]))
    return shown


def _conductance(result: LayerAttributions) -> Table:
    head = ["layer", "kind", "units", "carry nothing", "of the change", "most"]
    rows = [
        [
            c.layer,
            c.kind,
            f"{len(c.flow):,}",
            f"{c.silent:,}",
            percent(c.share) if math.isfinite(c.share) else "–",
            ", ".join(str(u) for u in c.ranking[:3]),
        ]
        for c in result.conductance
    ]
    return Table(head, rows, numeric=frozenset({2, 3, 4}), names=frozenset({0}))


# ---------------------------------------------------------------------- GradCAM


def _draw_gradcam(result: LayerAttributions, theme: Theme) -> Figure | None:
    """One panel per layer, from input to output: a curve, or a map."""
    cams = result.gradcam[:_MOST]
    if not cams:
        return None
    images = all(_image(c) for c in cams)
    columns = min(3, len(cams)) if images else 1
    lines = -(-len(cams) // columns)
    drawn = style.figure((3.4 if images else 2.4) * lines)
    grid = drawn.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(cams) :]:
        axes.set_axis_off()
    for cam, axes in zip(cams, grid.flat, strict=False):
        size = " × ".join(map(str, cam.resolution))
        axes.set_title(f"{style.label(cam.layer, 40)} ({cam.kind}, {size})")
        if len(cam.axes) > 1:
            _maps.overview(
                drawn, axes, cam.overview, theme, signed=result.signed, words="mean GradCAM",
                rate=result.sample_rate,
            )  # fmt: skip
            continue
        mean = cam.overview.signed[0]
        x = np.arange(len(mean)) / (
            result.sample_rate if result.sample_rate and cam.axes[0] == "time" else 1.0
        )
        axes.fill_between(x, 0, mean, color=theme.series[0], alpha=0.25, lw=0)
        axes.plot(x, mean, color=theme.series[0], lw=1.4, label="mean")
        axes.plot(x, cam.overview.magnitude[0], color=theme.muted, lw=1.0, ls="--", label="mean of |map|")
        axes.axhline(0, color=theme.ink, lw=0.8)
        axes.set_xlim(x[0], x[-1] if len(x) > 1 else 1)
        axes.set_xlabel(_maps.axis_label(cam.axes[0], result.sample_rate))
        axes.set_ylabel("GradCAM")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)
    return drawn


def _image(cam: GradCam) -> bool:
    return set(cam.axes[-2:]) == {"height", "width"}


def _caption_of_gradcam(result: LayerAttributions) -> str:
    words = f"Mean over {result.samples:,} samples, from input to output"
    if any(c.upsampled for c in result.gradcam):
        words += ", each brought to the size of the input"
    words += ". Above 0 a place speaks for the output" + (", below 0 against it." if result.signed else ".")
    if len(result.gradcam) > _MOST:
        words += f" The first {_MOST} of {len(result.gradcam)} layers are shown."
    return words


# ---------------------------------------------------------------------- conductance


def _draw_conductance(result: LayerAttributions, theme: Theme) -> Figure | None:
    """The units that carry most, a panel per layer."""
    layers = [c for c in result.conductance if float(c.magnitude.sum()) > 0][:_MOST]
    if not layers:
        return None
    columns = min(3, len(layers))
    lines = -(-len(layers) // columns)
    drawn = style.figure(lines * dots.height(_UNITS))
    grid = drawn.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(layers) :]:
        axes.set_axis_off()
    for layer, axes in zip(layers, grid.flat, strict=False):
        chosen = np.array(layer.ranking[:_UNITS])
        rows = np.arange(len(chosen))
        axes.barh(
            rows, layer.magnitude[chosen], color=theme.series[4], height=0.75, label="mean |conductance|"
        )
        axes.plot(layer.flow[chosen], rows, "o", color=theme.ink, ms=4, label="mean conductance")
        axes.axvline(0, color=theme.ink, lw=0.8)
        axes.set_yticks(rows, [str(u) for u in chosen])
        axes.set_ylim(max(len(chosen), 4) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{style.label(layer.layer, 34)} ({layer.kind})")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("conductance (unit of the output)")
        axes.set_ylabel("unit")
    grid.flat[0].legend(loc="lower right")
    return drawn


def _caption_of_conductance(result: LayerAttributions) -> str:
    words = (
        "Bars: mean over samples of |conductance|; points: mean with its sign, near 0 where samples use a "
        "unit in opposite ways."
    )
    most = max((len(c.flow) for c in result.conductance), default=0)
    return f"{words} The {_UNITS} units that carry most are shown." if most > _UNITS else words


# ---------------------------------------------------------------------- rollout


def _draw_rollout(result: LayerAttributions, theme: Theme) -> Figure | None:
    """The whole matrix, and what each input place receives."""
    found = result.rollout
    if found is None or len(found.matrix) < 2:
        return None
    drawn = style.figure(4.4)
    left, right = drawn.subplots(1, 2)
    edges = np.arange(len(found.matrix) + 1) - 0.5
    image = _maps.mesh(left, edges, edges, found.matrix, theme, signed=False)
    left.set_aspect("equal")
    left.set_xlabel(f"{style.label(found.axis)} of the input")
    left.set_ylabel(f"{style.label(found.axis)} of the output")
    drawn.colorbar(image, ax=left, shrink=0.9).set_label("share of attention")
    right.bar(np.arange(len(found.received)), found.received, color=theme.series[0], width=0.8)
    right.axhline(1 / len(found.received), color=theme.muted, ls="--", lw=1.1, label="evenly spread")
    right.set_xlabel(f"{style.label(found.axis)} of the input")
    right.set_ylabel("share of attention, mean over outputs")
    right.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return drawn


def _caption_of_rollout(result: LayerAttributions) -> str:
    if result.rollout is None:
        return ""
    count = len(result.rollout.layers)
    words = f"Attention of {count} layers, mean over heads, mixed with the residual and multiplied."
    if result.rollout.causal:
        words += " Attention is causal, so that early places are drawn from more often."
    even = number(1 / len(result.rollout.received))
    return f"{words} Evenly spread every place would have {even}."


DRAWINGS = (
    Drawing("layer_attributions_gradcam", "GradCAM", _draw_gradcam, _caption_of_gradcam),
    Drawing("layer_attributions_conductance", "Conductance", _draw_conductance, _caption_of_conductance),
    Drawing("layer_attributions_rollout", "Attention rolled out", _draw_rollout, _caption_of_rollout),
)
