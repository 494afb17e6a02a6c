import dataclasses
import json
import subprocess
import sys

import pytest

from tests.helpers_cli import call
from torchwatch.check import all_checks
from torchwatch.commands.explain import HEADINGS, limit_notes, reflowed


@pytest.mark.parametrize("slug", all_checks())
def test_every_check_is_explained(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = all_checks()[slug]
    shown = call(monkeypatch, "explain", slug)
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"{slug}  {check.severity.word}  {check.category.value}, looks at every ")
    places = [lines.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    for name, value in dataclasses.asdict(check.limits).items():
        assert any(line.split()[:2] == [name, f"{value!r}"] for line in lines)


@pytest.mark.parametrize("slug", all_checks())
def test_every_limit_says_what_it_means(slug: str) -> None:
    notes = limit_notes(all_checks()[slug])
    assert [name for name, note in notes.items() if len(note) < 5] == []


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(call(monkeypatch, "explain", "overfitting", "--json").out)
    assert body["check"] == "overfitting"
    assert "What it detects" in body["documentation"]
    assert body["limits"] == dataclasses.asdict(all_checks()["overfitting"].limits)


def test_unknown_check_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "explain", "overfiting")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == "torchwatch: there is no check 'overfiting'; did you mean 'overfitting'?\n"


def test_paragraphs_are_filled_and_deeper_lines_kept() -> None:
    doc = "Title.\n\nWhat it detects\n    one two ``three``\n    four\n\n    five\n        code  here\n"
    assert reflowed(doc, 100) == [
        "Title.",
        "",
        "What it detects",
        "    one two `three` four",
        "",
        "    five",
        "        code  here",
    ]
    assert reflowed(doc, 16)[3:5] == ["    one two", "    `three` four"]


def test_limit_notes_span_lines() -> None:
    @dataclasses.dataclass(frozen=True)
    class Limits:
        """When.

        Attributes:
            first: one
                and more (steps).
            second: two.
        """

        first: int = 1
        second: int = 2

    check = dataclasses.replace(all_checks()["overfitting"], limits=Limits())
    assert limit_notes(check) == {"first": "one and more (steps).", "second": "two."}


def test_as_a_user_runs_it() -> None:
    command = [sys.executable, "-m", "torchwatch", "explain", "rnn-depth"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert lines[0] == "rnn-depth  info  architecture, looks at every interval, layout"
    assert lines[2] == "Many recurrent layers lie on top of each other."
    assert any(line.split() == ["needs", "layout"] for line in lines)
    assert any(line.startswith("layers ") and line.split()[1] == "4" for line in lines)
