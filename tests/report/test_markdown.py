from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from tests.helpers_report import HOSTILE
from torchwatch.report import markdown
from torchwatch.report.document import Block, Bullets, Callout, Card, Code, Fold, Plot, Section, Table, Text
from torchwatch.report.plots import Failure, Picture
from torchwatch.report.sections import sections

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
PICTURE = Picture("loss", "Loss", "The caption.", b"light", b"dark", 10, 10)


def kinds(text: str) -> set[str]:
    """Every kind of token in the rendered text."""
    return {t.type for token in PARSER.parse(text) for t in (token, *(token.children or []))}


def one(block: Block) -> str:
    return markdown.render("title", [Section("section", "section", [block])], {"loss": PICTURE})


@pytest.mark.parametrize(
    "evil", [HOSTILE, "<script>alert(1)</script>", "`<b>` | `x` [a](b) <http://x.y>", "a\n\n# b"]
)
@pytest.mark.parametrize(
    "make",
    [
        Text,
        lambda e: Bullets([(e, e)]),
        lambda e: Table([e, "b"], [[e, e]], names=frozenset({0})),
        Code,
        lambda e: Callout("critical", e, e),
        lambda e: Fold(e, [Text(e)]),
        lambda e: Card("critical", e, [(e, e)], [Code(e)]),
    ],
)
def test_hostile_text_is_neither_html_nor_link_nor_picture(make, evil: str):
    found = kinds(one(make(evil)))
    assert not found & {"html_block", "html_inline", "link_open", "image"}


@pytest.mark.parametrize("name", ["hostile", "faulty", "empty"])
def test_whole_report_holds_no_html_and_no_control_character(report_of, name: str):
    report = report_of(name)
    text = markdown.render(report.title, sections(report), {})
    assert not kinds(text) & {"html_block", "html_inline", "link_open", "image"}
    assert all(c == "\n" or c.isprintable() for c in text)


def test_a_table_keeps_its_columns_whatever_is_in_its_cells():
    tokens = PARSER.parse(one(Table(["a", "b"], [["x | y `c | d` z", "`e`"], ["", "\\|"]])))
    assert sum(t.type == "td_open" for t in tokens) == 4
    assert sum(t.type == "th_open" for t in tokens) == 2


def test_code_cannot_end_its_fence():
    tokens = [t for t in PARSER.parse(one(Code("a\n```\n````\n# no heading", "text"))) if t.type == "fence"]
    assert [t.content for t in tokens] == ["a\n```\n````\n# no heading\n"]


def test_code_in_prose_is_code():
    assert "`clip_grad_norm_(x, 1.0)`" in one(Text("Use `clip_grad_norm_(x, 1.0)` first."))


def test_plots_are_linked_and_failed_ones_say_why():
    assert "![Loss](loss.png)\n\nThe caption." in one(Plot("loss"))
    assert one(Plot("absent")) == "# title\n\n## section\n"
    failed = markdown.render("t", [Section("s", "s", [Plot("x")])], {"x": Failure("x", "Loss", "<why>")})
    assert "Loss could not be drawn: &lt;why&gt;" in failed
