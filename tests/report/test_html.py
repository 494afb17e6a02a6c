from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from tests.helpers_report import HOSTILE
from torchwatch.report import html
from torchwatch.report.document import Callout, Card, Code, Fold, Plot, Section, Table, Text
from torchwatch.report.plots import Failure, Picture
from torchwatch.report.sections import sections
from torchwatch.report.write import _summary

ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer", "div"),
    *(
        "span",
        "p",
        "ul",
        "li",
        "b",
        "small",
        "h1",
        "h2",
        "h3",
        "a",
        "article",
        "table",
        "thead",
        "tbody",
        "tr",
    ),
    *("th", "td", "pre", "code", "details", "summary", "figure", "figcaption", "picture", "source", "img"),
}
ATTRIBUTES = {
    *(
        "alt",
        "class",
        "charset",
        "content",
        "height",
        "href",
        "http-equiv",
        "id",
        "lang",
        "media",
        "name",
        "src",
    ),
    *("srcset", "style", "width"),
}
VOID = {"meta", "source", "img"}
PICTURE = Picture("loss", "Loss", "The caption.", b"light", b"dark", 10, 10)
SUMMARY = {"score": 80, "band": "good", "tone": "good", "headline": "h", "facts": [("a", "b")], "footer": "f"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(*blocks, pictures=None) -> Page:
    return Page(html.render("title", SUMMARY, [Section("s", "s", list(blocks))], pictures or {}))


@pytest.mark.parametrize("name", ["hostile", "faulty", "healthy", "empty", "unfinished"])
def test_page_is_whole_and_holds_nothing_active(report_of, pictures_of, name: str):
    report, pictures = report_of(name), pictures_of(name)
    text = html.render(report.title, _summary(report), sections(report), pictures)
    found = Page(text)
    assert found.tags <= ALLOWED
    for _, attribute, value in found.attributes:
        assert not attribute.startswith("on")
        assert attribute in ATTRIBUTES
        if attribute in {"src", "srcset"}:
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", value or "")
        if attribute == "href":
            assert re.fullmatch(r"#[a-z-]+", value or "")
        if attribute == "style":
            assert re.fullmatch(r"--share: \d+", value or "")
    assert len([a for a in found.attributes if a[:2] == ("img", "src")]) == len(pictures)


def test_page_asks_for_nothing_from_elsewhere(report_of):
    report = report_of("faulty")
    text = html.render(report.title, _summary(report), sections(report), {})
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in style


def test_hostile_text_is_shown_as_it_is(report_of):
    report = report_of("hostile")
    found = Page(html.render(report.title, _summary(report), sections(report), {}))
    assert "<script>alert(1)</script>" in found.text
    assert "\\x1b[31mred" in found.text
    assert "\\u202eevil" in found.text
    assert not set(found.text) & {"\x1b", "\u202e"}
    assert "x" * 200 not in found.text


def test_every_block_escapes():
    evil = HOSTILE
    found = page(
        Text(evil),
        Table([evil, "b"], [[evil, evil]], names=frozenset({0})),
        Code(evil, evil),
        Callout("info", evil, evil),
        Fold(evil, [Text(evil)]),
        Card("info", evil, [(evil, evil)], [Text(evil)]),
        Plot("broken"),
        pictures={"broken": Failure("broken", "Broken", evil)},
    )
    assert found.tags <= ALLOWED
    assert not [a for a in found.attributes if a[1].startswith("on")]
    assert found.text.count("<script>") >= 10


def test_a_severity_from_elsewhere_cannot_leave_its_attribute():
    found = page(Card('x" onclick="y', "heading", [], []))
    assert ("article", "class", 'card x" onclick="y') in found.attributes


def test_pictures_are_inlined_for_light_and_dark():
    found = page(Plot("loss"), pictures={"loss": PICTURE})
    light, dark = (f"data:image/png;base64,{base64.b64encode(x).decode()}" for x in (b"light", b"dark"))
    assert ("img", "src", light) in found.attributes
    assert ("source", "srcset", dark) in found.attributes
    assert ("source", "media", "(prefers-color-scheme: dark)") in found.attributes
    assert "The caption." in found.text


def test_code_keeps_its_lines():
    assert "a\n  b\\x1b\n" in page(Code("a\n  b\x1b\n", "python")).text + "\n"
