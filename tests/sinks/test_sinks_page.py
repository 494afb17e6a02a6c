"""The page about sinks: its examples run, and it names every sink there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from torchwatch.sinks.named import _MAKERS

PAGE = Path(__file__).parents[2] / "docs" / "integrations" / "sinks.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHWATCH_SINKS", raising=False)
    monkeypatch.setenv("MY_HOOK", "https://example.org/hook")
    exec(compile(example.replace("prometheus:9101", "prometheus:0"), str(PAGE), "exec"), {})


def test_every_sink_is_on_the_page() -> None:
    named = re.findall(r"^\| `(\w+)(?::\w+)?` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(_MAKERS)
