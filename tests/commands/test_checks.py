import json
import subprocess
import sys

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


def test_an_unknown_category_is_refused_with_all_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "checks", "--category", "architectur")
    assert (shown.code, shown.out) == (2, "")
    assert all(repr(c.value) in shown.err for c in Category)


ARCHITECTURE = [
    "cnn-conv-bottleneck", "cnn-early-channel-explosion", "cnn-fc-dominates", "cnn-large-kernel",
    "cnn-missing-pooling", "rnn-bidirectional", "rnn-depth", "rnn-hidden-ratio", "rnn-long-sequence",
    "transformer-embedding-size", "transformer-head-split", "transformer-norm-placement",
    "transformer-position-capacity",
]  # fmt: skip


def test_as_a_user_runs_it() -> None:
    command = [sys.executable, "-m", "torchwatch", "checks", "--category", "architecture"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == ARCHITECTURE
    assert shown.stderr == ""
    listed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert [entry["check"] for entry in json.loads(listed.stdout)] == ARCHITECTURE
