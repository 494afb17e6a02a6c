"""The runs of a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.helpers_checks import records
from torchwatch.comparison import project_trend
from torchwatch.comparison.plot import draw_project
from torchwatch.errors import NotARunFile
from torchwatch.records import End, Record, encode


def put(path: Path, hour: int, level: float, *, finished: bool = True) -> None:
    lines: list[Record] = records(
        loss=[level + 1 / n for n in range(1, 101)], evals={100: {"val_loss": level}}
    )
    header = dataclasses.replace(lines[0], time=f"2026-01-01T{hour:02}:00:00+00:00", model="Net")  # type: ignore[call-arg]
    end = [End(step=100, steps=100, time_s=9.0, health_score=80, issues={"warning": 1})] if finished else []
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(map(encode, [header, *lines[1:], *end])))


def test_runs_come_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    for name, hour, level in (("late", 9, 0.1), ("early", 1, 0.9), ("more/middle", 5, 0.5)):
        put(tmp_path / f"{name}.jsonl", hour, level)
    found = project_trend(tmp_path)
    assert [e.name for e in found.entries] == ["early", "more/middle", "late"]
    assert [e.best for e in found.entries] == [0.9, 0.5, 0.1]
    assert {(e.health_score, e.status, e.model) for e in found.entries} == {(80, "finished", "Net")}
    assert found.sentences == (), "three runs show no trend"
    assert draw_project(found).startswith(b"\x89PNG")


def test_a_trend_is_told(tmp_path: Path) -> None:
    for n in range(6):
        put(tmp_path / f"{n}.jsonl", n, 1.0 - 0.1 * n)
    said = project_trend(tmp_path).sentences
    assert any("validation loss fell over 6 runs, from 1 to 0.5" in s for s in said), said
    assert not any("health" in s for s in said), "it did not change"


def test_a_run_without_an_end_is_judged(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", 1, 0.5, finished=False)
    entry = project_trend(tmp_path).entries[0]
    assert (entry.status, entry.steps) == ("unfinished", 100)
    assert entry.health_score is not None


def test_other_ranks_and_other_files_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "run.jsonl", 1, 0.5)
    put(tmp_path / "run.rank1.jsonl", 1, 0.5)
    (tmp_path / "notes.jsonl").write_text('{"a": 1}\n')
    seen: list[str] = []
    found = project_trend(tmp_path, lambda path: seen.append(path.name))
    assert [e.name for e in found.entries] == ["run"]
    assert [Path(path).name for path, _ in found.unreadable] == ["notes.jsonl"]
    assert sorted(seen) == ["notes.jsonl", "run.jsonl"]


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotARunFile, match="no run file"):
        project_trend(tmp_path)
    with pytest.raises(NotARunFile, match="no folder"):
        project_trend(tmp_path / "nothing")
