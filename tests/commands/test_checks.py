import json

import pytest

from tests.helpers_cli import call
from torchwatch.check import Category, all_checks


def test_table_has_a_line_per_check(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "checks")
    lines = shown.out.splitlines()
    assert lines[0].split() == ["check", "severity", "category", "when", "reads", "finds"]
    assert [line.split()[0] for line in lines[1:]] == list(all_checks())
    for line, check in zip(lines[1:], all_checks().values(), strict=True):
        assert line.split()[1:3] == [check.severity.word, check.category.value]
        assert line.endswith(check.title)


def test_json_has_every_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(call(monkeypatch, "checks", "--json").out)
    assert [c["check"] for c in listed] == list(all_checks())
    one = next(c for c in listed if c["check"] == "overfitting")
    assert one["category"] == "loss"
    assert one["limits"]["patience"] > 0
    assert {"title", "severity", "when", "reads", "uses", "fix"} <= set(one)


@pytest.mark.parametrize("category", [c.value for c in Category])
def test_category_chooses(category: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(call(monkeypatch, "checks", "--category", category, "--json").out)
    assert [c["check"] for c in listed] == [
        slug for slug, check in all_checks().items() if check.category.value == category
    ]


def test_table_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    for width in (80, 120):
        shown = call(monkeypatch, "checks", terminal=True, width=width).out
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert max(len(line.rstrip()) for line in plain.splitlines()) <= width
