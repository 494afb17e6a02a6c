import html
import math
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.text import band, duration, markdown, number, percent, printable, size


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("conv1.weight", "conv1.weight"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("left\u202eright", r"left\u202eright"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("no\u00a0break", "no break"),
        ("line\u2028separator", r"line\u2028separator"),
        ("\ud800", r"\ud800"),
        ("schön 層", "schön 層"),
        (None, "None"),
        (3.5, "3.5"),
    ],
)
def test_printable_shows_what_would_hide_or_move(raw: object, shown: str) -> None:
    assert printable(raw) == shown


def test_printable_cuts_long_text_and_says_so() -> None:
    assert printable("x" * 300) == "x" * 300
    assert printable("x" * 10_000) == "x" * 299 + "…"
    assert printable("\x1b" * 100, limit=50) == (r"\x1b" * 13)[:49] + "…"


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=400), st.integers(10, 80))
def test_printable_is_one_harmless_line(raw: str, limit: int) -> None:
    shown = printable(raw, limit)
    assert len(shown) <= limit
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert shown.splitlines() in ([], [shown])


@given(st.text(max_size=200))
def test_markdown_leaves_no_active_character(raw: str) -> None:
    shown = markdown(raw)
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[`*_{}\[\]()#+!|~$]", shown)


@given(st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=200))
def test_markdown_reads_back_as_the_same_text(raw: str) -> None:
    literal = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown(raw))
    assert html.unescape(literal) == printable(raw)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<script>alert(1)</script>", r"&lt;script&gt;alert\(1\)&lt;/script&gt;"),
        ("a|b", r"a\|b"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("===", r"\==="),
        ("layer-1.weight", "layer-1.weight"),
        ("0.93 of units", "0.93 of units"),
        ("-0.5", "-0.5"),
    ],
)
def test_markdown_is_literal(raw: str, shown: str) -> None:
    assert markdown(raw) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (0.123456, "0.1235"),
        (1e-9, "1e-09"),
    ],
)
def test_number(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (999, "999 B"),
        (1_200, "1.2 kB"),
        (512_000_000, "512.0 MB"),
        (1.2e9, "1.2 GB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_size(count: float | None, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (0.85, "850 ms"),
        (12.34, "12.3 s"),
        (245, "4 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (100, "excellent"),
        (90, "excellent"),
        (89, "good"),
        (70, "good"),
        (69, "warning"),
        (50, "warning"),
        (49, "critical"),
        (0, "critical"),
        (None, "not judged"),
    ],
)
def test_band_edges(score: int | None, word: str) -> None:
    assert band(score) == word


def test_percent_is_readable_at_every_size() -> None:
    assert [percent(x) for x in (0.005, 0.0967, 0.12, 0.819, 11.9)] == [
        "0.5 %", "9.7 %", "12 %", "82 %", "1,190 %",
    ]  # fmt: skip
