"""The plots of a report: one plot, one file.

A plot module has ``TITLE``, ``caption(report) -> str`` and ``draw(report, theme) -> Figure | None``;
None means that the run holds nothing to draw. :data:`NAMES` is their order.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torchwatch.report import style

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

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


@dataclass(frozen=True, slots=True)
class Failure:
    """A plot that could not be drawn, and why."""

    name: str
    title: str
    reason: str


def draw_all(
    report: Report, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Picture | Failure]:
    """Draw every plot that the run has data for, by name; one that fails does not stop the others.

    ``progress`` is called with what is being done.
    """
    drawn: dict[str, Picture | Failure] = {}
    for number, name in enumerate(NAMES, 1):
        progress(f"drawing plot {number} of {len(NAMES)}")
        module = importlib.import_module(f"torchwatch.report.plots.{name}")
        try:
            picture: Picture | Failure | None = _draw(report, name, module)
        except Exception as error:  # noqa: BLE001 - a report without one plot is better than none
            picture = Failure(name, module.TITLE, f"{type(error).__name__}: {error}")
        if picture is not None:
            drawn[name] = picture
    return drawn


def _draw(report: Report, name: str, module: Any) -> Picture | None:
    caption = ""

    def draw(theme: style.Theme) -> Figure | None:
        nonlocal caption
        drawn: Figure | None = module.draw(report, theme)
        caption = module.caption(report) if drawn is not None else ""
        return drawn

    picture = drawn_twice(name, module.TITLE, "", draw)
    return None if picture is None else replace(picture, caption=caption)


def drawn_twice(
    name: str, title: str, caption: str, draw: Callable[[style.Theme], Figure | None]
) -> Picture | None:
    """The picture for light and for dark pages; None where there is nothing to draw."""
    images: list[bytes] = []
    width = height = 0
    for theme in (style.LIGHT, style.DARK):
        with style.themed(theme):
            drawn = draw(theme)
            if drawn is None:
                return None
            images.append(style.png(drawn))
            width, height = (round(side * style.DPI) for side in drawn.get_size_inches())
    return Picture(name, title, caption, images[0], images[1], width, height)
