import json
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.helpers_runs import HOSTILE, faulty_run, hostile_run, is_harmless, whole_run, write_run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "good.jsonl", whole_run()), write_run(tmp_path / "bad.jsonl", faulty_run())


def test_a_table_and_a_picture(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, "compare", *runs)
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["good", "bad"]
    assert any(line.startswith("health score") for line in lines)
    assert "Checks that differ" in lines
    picture = runs[0].with_name("good-compared.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_mode & 0o077 == 0
    assert str(picture) in result.err


def test_json_alone_draws_nothing(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(call(monkeypatch, "compare", *runs, "--json").out)
    assert set(body) == {"runs", "settings", "partings", "checks"}
    assert not runs[0].with_name("good-compared.png").exists()
    drawn = runs[0].with_name("x.png")
    call(monkeypatch, "compare", *runs, "--json", "--plot", drawn)
    assert drawn.exists()


def test_a_run_and_itself(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = call(monkeypatch, "compare", runs[0], runs[0], "--no-plot").out
    assert "the same loss to the bit on all" in out
    assert "Settings that differ: none" in out
    assert "Checks that differ: none" in out


def test_one_run_or_no_run_is_refused(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = call(monkeypatch, "compare", runs[0])
    assert (alone.code, alone.out) == (2, "")
    assert "two runs" in alone.err
    assert call(monkeypatch, "compare", runs[0], runs[0].with_name("no.jsonl")).code == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_runs_is_harmless(
    runs: tuple[Path, Path], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = write_run(tmp_path / "hostile.jsonl", hostile_run(text))
    result = call(monkeypatch, "compare", runs[0], hostile)
    assert result.code == 0
    assert is_harmless(result.out)
    assert is_harmless(result.err)
