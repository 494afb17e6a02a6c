"""Frequency bands: what the error gains when a band is taken out, beside the power that lies in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.frequency_bands import FrequencyBands


def blocks(result: FrequencyBands) -> list[Block]:
    """What was done, the picture, and the numbers."""
    intro = (
        f"{result.metric[:1].upper()}{result.metric[1:]} on {result.samples:,} samples: "
        f"{number(result.baseline)}. Importance is how much it rises when a band is filtered out along "
        f"{result.axis} (band-stop with tapered edges, phases kept); sampled at "
        f"{number(result.sample_rate)} Hz, frequencies {number(result.resolution)} Hz apart."
    )
    rows = [
        [
            shortened(name),
            f"{number(low)}–{number(high)}",
            _known(result.importance[i]),
            "–" if math.isnan(result.importance[i]) else " … ".join(map(number, result.interval[i].tolist())),
            percent(float(result.power[i])) if math.isfinite(result.power[i]) else "–",
        ]
        for i, (name, (low, high)) in enumerate(zip(result.bands, result.edges, strict=True))
    ]
    head = ["band", "Hz", "importance", "95 % interval", "share of power"]
    return [Text(intro), Plot("frequency_bands"), Table(head, rows, numeric=frozenset({1, 2, 3, 4}))]


def _known(value: float) -> str:
    return "not tested" if math.isnan(value) else number(float(value))


def _draw(result: FrequencyBands, theme: Theme) -> Figure | None:
    """Importance on the left, power on the right, low frequencies at the top."""
    if not result.ranking:
        return None
    drawn = style.figure(dots.height(len(result.bands)) + 0.3)
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[2.2, 1])
    low, high = result.interval.T
    covers = ~((low > 0) | (high < 0))
    tints = [theme.muted if c else theme.series[0] for c in covers]
    names = [
        name if name.endswith("Hz") else f"{name} ({a:g}–{b:g} Hz)"
        for name, (a, b) in zip(result.bands, result.edges, strict=True)
    ]
    dots.draw_dots(left, names, result.importance, low, high, theme, colours=tints, hollow=covers)
    dots.reference(left, 0.0, "as good without it", theme)
    for row in np.nonzero(np.isnan(result.importance))[0]:
        left.text(0, row, " not tested", va="center", fontsize=8, color=theme.muted)
    left.set_xlabel(f"rise of the {result.metric} (now {result.baseline:.4g})")
    right.barh(np.arange(len(names)), 100 * np.nan_to_num(result.power), color=theme.series[4], height=0.6)
    right.set_xlabel("share of the input's power (%)")
    right.grid(visible=False, axis="y")
    right.tick_params(axis="y", length=0)
    return drawn


def _caption(result: FrequencyBands) -> str:
    words = (
        "Rise of the error without each band; lines are 95 % intervals over the samples, rings cover 0. A "
        "band with much power and no importance is there but not used."
    )
    missing = len(result.bands) - len(result.ranking)
    return f"{words} {missing} of {len(result.bands)} bands were not tested." if missing else words


DRAWINGS = (Drawing("frequency_bands", "Importance of frequency bands", _draw, _caption),)
