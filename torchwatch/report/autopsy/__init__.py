"""The autopsy's pages in a report: one examination, one file of the examination's name.

A page module has ``blocks(result) -> list[Block]`` and ``DRAWINGS``, a tuple of :class:`Drawing`. Both see
nothing but the result, so that a page can be made anywhere, and without torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from torchwatch.report.document import Block, Bullets, Callout, Section, Text
from torchwatch.report.plots import Failure, Picture, drawn_twice
from torchwatch.report.words import NOT_EXAMINED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results import Autopsy, Outcome


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture of a result.

    Attributes:
        name: of its file, without ``.png``; it begins with the examination's name.
        title: above the picture.
        draw: from (result, theme) to a figure; None where the result holds nothing to draw.
        caption: from the result to the words under the picture.
    """

    name: str
    title: str
    draw: Callable[[Any, Theme], Figure | None]
    caption: Callable[[Any], str]


@cache
def page_of(name: str) -> Any:
    """The page module of an examination."""
    return importlib.import_module(f"torchwatch.report.autopsy.{name}")


@cache
def page_names() -> tuple[str, ...]:
    """Examinations that have a page, sorted."""
    found = (info.name for info in pkgutil.iter_modules(__path__))
    return tuple(sorted(n for n in found if not n.startswith("_")))


def draw_autopsy(
    autopsy: Autopsy, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Picture | Failure]:
    """Draw every picture that the results hold, by name; one that fails does not stop the others."""
    drawn: dict[str, Picture | Failure] = {}
    for name in autopsy:
        progress(f"drawing {name.replace('_', ' ')}")
        for drawing in page_of(name).DRAWINGS if name in page_names() else ():
            picture = _drawn(drawing, autopsy[name])
            if picture is not None:
                drawn[drawing.name] = picture
    return drawn


def _drawn(drawing: Drawing, result: Any) -> Picture | Failure | None:
    try:
        caption = drawing.caption(result)
        return drawn_twice(drawing.name, drawing.title, caption, lambda theme: drawing.draw(result, theme))
    except Exception as error:  # noqa: BLE001 - a report without one picture is better than none
        return Failure(drawing.name, drawing.title, f"{type(error).__name__}: {error}")


def autopsy_sections(autopsy: Autopsy) -> list[Section]:
    """One section per examination that was done, the verdict first, then those that were not and why."""
    done = sorted((o for o in autopsy.outcomes if o.status == "done"), key=_place)
    sections = [Section(o.title, f"autopsy-{o.name.replace('_', '-')}", _blocks(o)) for o in done]
    noticed = _remarks(autopsy.about)
    if noticed:
        sections.append(Section("What was examined", "autopsy-about", noticed))
    failed = [o for o in autopsy.outcomes if o.status != "done"]
    if failed:
        rows = [
            (o.title, f"{'could not run' if o.status == 'failed' else 'not done'}: {o.reason}")
            for o in failed
        ]
        sections.append(Section("Examinations without a result", "autopsy-without", [Bullets(rows)]))
    return sections


def _place(outcome: Outcome) -> int:
    """The verdict first, then the order in which they are listed where there was no model."""
    order = ["verdict", *(name.replace(" ", "_") for name, _ in NOT_EXAMINED)]
    return order.index(outcome.name) if outcome.name in order else len(order)


def _blocks(outcome: Outcome) -> list[Block]:
    """The remarks of a result, then its page."""
    remarks = _remarks(outcome.result)
    if outcome.name not in page_names():
        return remarks
    return remarks + list(page_of(outcome.name).blocks(outcome.result))


def _remarks(said: Any) -> list[Block]:
    """The remarks of a result, or of what was examined."""
    return [
        Callout(r.severity, r.text, r.fix) if r.severity != "info" else Text(f"{r.text} {r.fix}".strip())
        for r in getattr(said, "remarks", ())
    ]
