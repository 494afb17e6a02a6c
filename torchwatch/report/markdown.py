"""The report as Markdown; pictures are linked by their file names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torchwatch.report.document import (
    Block,
    Bullets,
    Callout,
    Card,
    Code,
    Fold,
    Plot,
    Section,
    See,
    Table,
    Text,
    shortened,
    spans,
)
from torchwatch.report.plots import Failure
from torchwatch.text import markdown, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchwatch.report.plots import Picture

_LONGEST_TEXT = 2000
_LONGEST_CELL = 300
_LONGEST_LINE = 500
_MARKS = {"critical": "🟥", "warning": "🟧", "info": "🟦", "good": "🟩"}


def render(title: str, sections: list[Section], pictures: Mapping[str, Picture | Failure]) -> str:
    """The whole report as Markdown (CommonMark with tables), ending in one newline."""
    parts = [f"# {markdown(title)}"]
    for section in sections:
        parts.append(f"## {markdown(section.title)}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, pictures: Mapping[str, Picture | Failure]) -> str:
    match block:
        case Text():
            return _prose(block.text)
        case Bullets():
            return "\n".join(_item(*item) for item in block.items)
        case Table():
            return _table(block)
        case Code():
            return _code(block)
        case Plot():
            return _plot(pictures[block.name]) if block.name in pictures else ""
        case Callout():
            text = f" {_prose(block.text)}" if block.text else ""
            return f"> {_MARKS.get(block.tone, '')} **{markdown(block.title)}**{text}"
        case Fold():
            return _joined([f"**{markdown(block.summary)}**"], block.blocks, pictures)
        case Card():
            return _card(block, pictures)
        case See():
            return f"→ see **{markdown(block.title)}**: {_prose(block.text)}"


def _joined(head: list[str], blocks: list[Block], pictures: Mapping[str, Picture | Failure]) -> str:
    return "\n\n".join([*head, *(text for b in blocks if (text := _block(b, pictures)))])


def _card(card: Card, pictures: Mapping[str, Picture | Failure]) -> str:
    facts = " · ".join(f"{markdown(k)}: {markdown(v)}" for k, v in card.facts)
    return _joined(
        [f"### {_MARKS.get(card.severity, '')} {markdown(card.heading)}", facts], card.blocks, pictures
    )


def _prose(text: str) -> str:
    """Prose with its code spans; inside one nothing is markup, so nothing in it is escaped."""
    parts = spans(printable(text, _LONGEST_TEXT))
    return "".join(
        f"`{part}`" if code and part.strip() else markdown(part, _LONGEST_TEXT) for code, part in parts
    )


def _item(term: str, text: str) -> str:
    said = _prose(text)
    return f"- **{markdown(term)}**: {said}" if term else f"- {said}"


def _table(table: Table) -> str:
    rules = ["---:" if i in table.numeric else "---" for i in range(len(table.head))]
    rows = [
        [_cell(shortened(c) if i in table.names else c) or " " for i, c in enumerate(row)]
        for row in (table.head, *table.rows)
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"| {' | '.join(rules)} |", *lines[1:]])


def _cell(text: str) -> str:
    """A cell; a code span that holds a pipe would end it and is escaped as text instead."""
    shown = printable(text, _LONGEST_CELL)
    return markdown(shown, 2 * _LONGEST_CELL) if "|" in shown else _prose(shown)


def _code(code: Code) -> str:
    """A fence longer than any run of backticks in the text, so that the text cannot end it."""
    lines = [printable(line, _LONGEST_LINE) for line in code.text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{code.language}", *lines, fence])


def _plot(picture: Picture | Failure) -> str:
    if isinstance(picture, Failure):
        return f"{markdown(picture.title)} could not be drawn: {markdown(picture.reason)}"
    return f"![{markdown(picture.title)}]({picture.name}.png)\n\n{markdown(picture.caption, _LONGEST_TEXT)}"
