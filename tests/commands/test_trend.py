import json
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.helpers_runs import HOSTILE, faulty_run, hostile_run, is_harmless, whole_run, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "good.jsonl", whole_run())
    write_run(tmp_path / "bad.jsonl", faulty_run())
    return tmp_path


def test_a_table_and_a_picture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, "trend", folder)
    assert result.code == 0
    assert result.out.split()[0] == "run"
    assert {line.split()[0] for line in result.out.splitlines()} >= {"good", "bad"}
    picture = folder / "trend.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_mode & 0o077 == 0


def test_json_alone_draws_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(call(monkeypatch, "trend", folder, "--json").out)
    assert sorted(run["name"] for run in body["runs"]) == ["bad", "good"]
    assert not (folder / "trend.png").exists()


def test_a_folder_without_runs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, "trend", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert "no run file" in result.err


def test_what_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "notes.jsonl").write_text("[]\n")
    result = call(monkeypatch, "trend", folder, "--no-plot")
    assert result.code == 0
    assert "notes.jsonl left out" in result.err


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_runs_is_harmless(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(folder / "hostile.jsonl", hostile_run(text))
    result = call(monkeypatch, "trend", folder)
    assert result.code == 0
    assert is_harmless(result.out)
    assert is_harmless(result.err)
