"""Checks that hold for every page of an autopsy."""

from __future__ import annotations

from typing import Any

from torchwatch.report import style
from torchwatch.report.autopsy import page_of
from torchwatch.report.document import Block, Bullets, Fold, Plot, Table

HOSTILE = "<script>alert(1)</script> $x_{1}$ `a` | \x1b[31m\nnew 漢字 \u202eevil " + "long " * 40


def figures(name: str, result: Any) -> dict[str, Any]:
    """Every figure that the page draws of a result, by name; drawn in both themes, and rendered in one."""
    found = {}
    for drawing in page_of(name).DRAWINGS:
        assert drawing.name.startswith(name)
        assert drawing.caption(result).endswith(".")
        with style.themed(style.DARK):
            dark = drawing.draw(result, style.DARK)
        with style.themed(style.LIGHT):
            figure = drawing.draw(result, style.LIGHT)
            assert (dark is None) == (figure is None)
            if figure is not None:
                assert style.png(figure).startswith(b"\x89PNG")
                found[drawing.name] = figure
    return found


def blocks(name: str, result: Any) -> list[Block]:
    """Blocks of the page; tables are whole, and every drawing has its place."""
    found = list(page_of(name).blocks(result))
    flat = [b for f in found for b in (f.blocks if isinstance(f, Fold) else [f])]
    for block in flat:
        if isinstance(block, Table):
            assert all(len(row) == len(block.head) for row in block.rows)
            assert all(isinstance(cell, str) for row in block.rows for cell in row)
        if isinstance(block, Bullets):
            assert all(isinstance(part, str) for item in block.items for part in item)
    assert {d.name for d in page_of(name).DRAWINGS} == {b.name for b in flat if isinstance(b, Plot)}
    return found
