"""The plots of a report: one plot, one file.

A plot module has ``TITLE``, ``caption(report) -> str`` and ``draw(report, theme) -> Figure | None``; None means that
the run holds nothing to draw. :data:`NAMES` is their order.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.report import style

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from torchwatch.report.report import Report

NAMES = (
    "loss",
    "metrics",
    "gradient_norm",
    "gradient_flow",
    "update_ratios",
    "activations",
    "throughput",
    "memory",
    "timeline",
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn plot: PNG bytes for light and for dark pages, and the words under it."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes
    width: int
    height: int


def draw_all(report: Report, progress: Callable[[str], None] = lambda _: None) -> dict[str, Picture]:
    """Draw every plot that the run has data for, by name.

    Args:
        report: what to draw.
        progress: called with a plot's title before it is drawn.
    """
    return {picture.name: picture for picture in _pictures(report, progress)}


def _pictures(report: Report, progress: Callable[[str], None]) -> Iterator[Picture]:
    for name in NAMES:
        module = importlib.import_module(f"torchwatch.report.plots.{name}")
        progress(module.TITLE)
        images = []
        for theme in (style.LIGHT, style.DARK):
            with style.themed(theme):
                drawn = module.draw(report, theme)
                if drawn is None:
                    break
                images.append(style.png(drawn))
        if drawn is not None:
            width, height = (round(side * style.DPI) for side in drawn.get_size_inches())
            yield Picture(name, module.TITLE, module.caption(report), images[0], images[1], width, height)
