import dataclasses
import json
import os
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.helpers_runs import HOSTILE, alert, faulty_run, hostile_run, is_harmless, whole_run, write_run
from torchwatch.diagnosis import Diagnosis, LayerHighlight, diagnose

PROGRESS = (
    "step 100 · epoch 0 · loss 0.12 · 320 samples/s · RAM 512.0 MB · GPU 2.0 GB · 10.2 s"
    " · val_loss 0.5 · val_accuracy 0.9"
)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    return write_run(tmp_path / "faulty.jsonl", faulty_run())


def test_healthy_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "run.jsonl", whole_run())
    lines = call(monkeypatch, "status", path).out.splitlines()
    assert lines[:4] == [
        f"run       {path} · SmallNet",
        "state     finished",
        f"progress  {PROGRESS}",
        "health    100/100 (excellent) · no issue",
    ]
    assert "Top issues" not in lines


def test_a_run_without_steps_is_not_called_healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "run.jsonl", whole_run()[:1])
    shown = call(monkeypatch, "status", path).out
    assert "health    not judged: the file holds no training step\n" in shown
    assert "/100" not in shown
    body = json.loads(call(monkeypatch, "status", path, "--json").out)
    assert (body["health_score"], body["band"]) == (None, "not judged")


def test_run_that_is_still_written(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(faulty, (0, 0))
    shown = call(monkeypatch, "status", faulty).out
    assert "state     no end recorded: last line" in shown
    assert "health    80/100 (good) · 1 critical issue\n" in shown
    assert "\nTop issues\nCRITICAL  since step 50  loss-nonfinite  " in shown
    assert "          fix: " in shown


def test_torn_last_line_is_no_obstacle(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty.open("ab") as file:
        file.write(b'{"kind":"step","step":8')
    assert "1 critical issue" in call(monkeypatch, "status", faulty).out


def test_what_was_not_run_is_grouped_by_reason(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = call(monkeypatch, "status", faulty).out.splitlines()
    rows = lines[lines.index("Not run") + 1 :]
    assert rows[0].split() == ["because", "checks"]
    assert any(row.startswith("no `wiring`") and "train-mode-eval" in row for row in rows)
    assert len(rows) <= 8


def judged(path: Path, names: list[str]) -> Diagnosis:
    """The diagnosis of a run with an issue in each of these layers."""
    issues = tuple(alert(layer=name, check=f"check-{i}") for i, name in enumerate(names))
    layers = tuple(LayerHighlight(n, "Linear", 7, (f"check-{i}",) * 2) for i, n in enumerate(names))
    return dataclasses.replace(diagnose(path), issues=issues, layers=layers)


def test_top_layers_and_issues_are_five_at_most(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(faulty, [f"block{i}" for i in range(8)])
    monkeypatch.setattr("torchwatch.diagnosis.diagnose", lambda *_, **__: found)
    shown = call(monkeypatch, "status", faulty).out
    assert shown.count("WARNING") == 5
    assert f"… and 3 more: torchwatch diagnose {faulty}" in shown
    assert "block0  Linear  check-0\n" in shown
    assert "block5  Linear" not in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_layer_names_are_never_markup(terminal: bool, faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(faulty, [*HOSTILE, "[red]x[/red]", ":smile:", ""][-5:])
    monkeypatch.setattr("torchwatch.diagnosis.diagnose", lambda *_, **__: found)
    shown = call(monkeypatch, "status", faulty, terminal=terminal, width=200).out
    assert is_harmless(shown, colours=terminal)
    table = shown[shown.index("Top layers") :]
    assert "[red]x[/red]" in table
    assert ":smile:" in table
    assert "(the model itself)" in table


def test_json(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(call(monkeypatch, "status", faulty, "--json").out)
    assert body["health_score"] == 80
    assert body["band"] == "good"
    assert body["status"] == "unfinished"
    assert body["progress"]["step"] == 80
    assert body["progress"]["loss"] is None
    assert body["severities"] == {"critical": 1, "warning": 0, "info": 0}
    assert body["issues"][0]["check"] == "loss-nonfinite"
    assert "no `grad_norm`" in body["not_run"]["exploding-gradients"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_escaped(
    text: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "hostile.jsonl", hostile_run(text))
    shown = call(monkeypatch, "status", path, terminal=terminal)
    assert shown.code == 0
    assert is_harmless(shown.out, colours=terminal)
    assert is_harmless(call(monkeypatch, "status", path, "--json").out)
