"""The benchmark over labelled logs, on a folder made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.logs.logs import false_alarms, groups, judge, main, summary


def label(name: str, confidence: str = "high", why: str = "seen") -> dict[str, Any]:
    return {"label": name, "from": 1, "to": 30, "confidence": confidence, "why": why}


def keras(losses: list[float], val: list[float]) -> str:
    rows = [f"{e},{x},{v}\n" for e, (x, v) in enumerate(zip(losses, val, strict=True))]
    return "epoch,loss,val_loss\n" + "".join(rows)


FALLING = [2.0 / (e + 1) for e in range(30)]
OVERFIT = [1.0 + 0.1 * abs(e - 4) for e in range(30)]
LOGS = {
    "a": ("one", "clean", [label("healthy")], keras(FALLING, FALLING)),
    "b": ("one", "pathological", [label("overfitting")], keras(FALLING, OVERFIT)),
    "c": ("two", "clean", [label("healthy")], keras(FALLING, OVERFIT)),
    "d": ("two", "pathological", [label("nan"), label("suspicious")], keras(FALLING, FALLING)),
    "e": ("two", "clean", [label("healthy")], "no log"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    index, labels = [], []
    for name, (repo, verdict, said, content) in LOGS.items():
        (tmp_path / f"{name}.csv").write_text(content)
        index.append({"id": name, "repo": repo, "file": f"{name}.csv"})
        labels.append({"id": name, "verdict": verdict, "labels": said})
    for file, rows in (("index.jsonl", index), ("labels.jsonl", labels)):
        (tmp_path / file).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_hits_misses_and_false_alarms(folder: Path) -> None:
    result = summary(judge(folder))
    assert result["labels"]["overfitting"] == {"labels": 1, "hits": 1, "warnings": 1, "misses": 0}
    assert result["labels"]["overfitting, high confidence"]["hits"] == 1
    assert result["labels"]["nan"] == {"labels": 1, "hits": 0, "warnings": 0, "misses": 1}
    assert "suspicious" not in result["labels"]  # no check is to find a fault of the logging
    assert result["repositories"]["one"] == {"logs": 2, "hits": 1, "misses": 0, "false alarms": 0}
    assert result["repositories"]["two"] == {"logs": 3, "hits": 0, "misses": 1, "false alarms": 1}
    assert (result["clean"], result["quiet"]) == (3, 1)
    kinds = {(d["id"], d["kind"], d["what"][:11]) for d in result["disagreements"]}
    assert {k for k in kinds if k[0] != "e"} == {("c", "false alarm", "overfitting"), ("d", "missed", "nan")}
    assert [k[1] for k in kinds if k[0] == "e"] == ["unreadable"]


def test_a_warning_that_a_label_explains_is_no_false_alarm(folder: Path) -> None:
    by_id = {log.id: log for log in judge(folder)}
    assert false_alarms(by_id["b"]) == []
    assert false_alarms(by_id["c"]) == ["overfitting"]


def test_a_plateau_at_chance_has_a_row_of_its_own() -> None:
    assert groups(label("plateau", why="5.299 = ln(200)")) == ["plateau", "plateau at ln K"]
    assert groups(label("plateau", "medium", "ln2")) == ["plateau"]
    assert groups(label("overfitting", "low")) == ["overfitting"]


def test_command_writes_both_forms_and_fails_below_a_goal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--out", str(folder / "out")]) == 1
    shown = capsys.readouterr().out
    assert shown.strip() == (folder / "out" / "logs.md").read_text().strip()
    assert "| clean logs without a warning | 1 | 3 | MISSED |" in shown
    assert json.loads((folder / "out" / "logs.json").read_text())["logs"] == 5
