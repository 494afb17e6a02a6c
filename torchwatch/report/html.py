"""The report as one HTML file that needs nothing else: no script, no request, pictures inside.

All text goes through the template engine's autoescaping after :func:`~torchwatch.text.printable` has
made control characters visible; a content security policy forbids whatever might slip through.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

from torchwatch.report.document import shortened, spans
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

    from torchwatch.report.document import Section
    from torchwatch.report.plots import Failure, Picture

_LONGEST_TEXT = 2000
_LONGEST_LINE = 500


def render(
    title: str,
    summary: Mapping[str, object],
    sections: list[Section],
    pictures: Mapping[str, Picture | Failure],
) -> str:
    """The whole report as HTML.

    Args:
        title: the run's name.
        summary: what the head shows (``score``, ``band``, ``tone``, ``headline``, ``facts``).
        sections: the rest, in order.
        pictures: drawn plots by name; each is inlined for light and for dark pages.
    """
    return _template().render(title=title, summary=summary, sections=sections, pictures=pictures)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("torchwatch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = lambda text: printable(text, _LONGEST_TEXT)
    environment.filters["prose"] = lambda text: spans(printable(text, _LONGEST_TEXT))
    environment.filters["name"] = lambda text: printable(shortened(text))
    environment.filters["lines"] = lines
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("report.html")


def lines(text: str) -> str:
    """Text in lines with every other control character made visible."""
    return "\n".join(printable(line, _LONGEST_LINE) for line in text.splitlines())
