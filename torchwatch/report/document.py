"""A report as sections and blocks, before anybody decides between Markdown and HTML.

Every string in here is plain text that is escaped by whoever renders it. The only inline markup is a pair of
backticks in prose, which sets what is between them as code: the worst that text from a run can do with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``quiet`` for remarks."""

    text: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list; each item is a term (may be empty) and what is said of it."""

    items: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. ``numeric`` are the columns set flush right, ``names`` those set as code."""

    head: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()
    names: frozenset[int] = frozenset()
    severity: int | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """Text in lines, shown as it is: a snippet, a traceback."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture by its name; nothing is shown when it was not drawn."""

    name: str


@dataclass(frozen=True, slots=True)
class Callout:
    """A boxed remark; ``tone`` is good, info, warning or critical."""

    tone: str
    title: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks under a summary line: open or closed in HTML, always shown in Markdown."""

    summary: str
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Card:
    """One incident: heading, severity, facts in a row, and blocks."""

    severity: str
    heading: str
    facts: list[tuple[str, str]]
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class See:
    """A pointer to another section: its anchor, its title, and what is to be seen there."""

    anchor: str
    title: str
    text: str


Block = Text | Bullets | Table | Code | Plot | Callout | Fold | Card | See


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it; ``anchor`` is ours and a valid HTML id."""

    title: str
    anchor: str
    blocks: list[Block] = field(default_factory=list)


_LONGEST_NAME = 100


def shortened(text: str, limit: int = _LONGEST_NAME) -> str:
    """A name without its middle where it is too long: its two ends tell it from others."""
    head = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[-(limit - 1 - head) :]}"


def spans(text: str) -> list[tuple[bool, str]]:
    """Prose in parts, and whether each is code: what stands between a pair of backticks on one line."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    return [(i % 2 == 1, part) for i, part in enumerate(parts) if part]
