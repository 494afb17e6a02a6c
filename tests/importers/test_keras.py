from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.importers.reading import evals, losses, notes, of_kind, opened
from torchwatch.records import Step


def history(epochs: int = 5, ends: str = "\n") -> str:
    rows = ["epoch,auc,learning_rate,loss,val_auc,val_loss"]
    rows += [f"{e},0.{50 + e},0.001,{2 / (e + 1)},0.{40 + e},{3 / (e + 1)}" for e in range(epochs)]
    return "".join(row + ends for row in rows)


def test_metrics_without_a_prefix_are_of_training(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "history.csv", history())
    assert reader.format == "Keras history"
    assert losses(records) == {1: 2.0, 2: 1.0, 3: 0.666666667, 4: 0.5, 5: 0.4}
    assert evals(records, "val_auc")[1] == 0.4
    step = of_kind(records, Step)[0]
    assert (step.epoch, step.lr, step.metrics) == (0, [0.001], {"auc": 0.5})


def test_crlf(tmp_path: Path) -> None:
    _, crlf = opened(tmp_path / "a", history(ends="\r\n"))
    _, plain = opened(tmp_path / "b", history())
    assert losses(crlf) == losses(plain)


def test_appended_runs_leave_the_last(tmp_path: Path) -> None:
    body = history().partition("\n")[2]
    _, records = opened(
        tmp_path / "x", history() + body + history(3)
    )  # `append=True`, one time with a header
    assert losses(records) == {1: 2.0, 2: 1.0, 3: 0.666666667}
    assert len(evals(records, "val_loss")) == 3
    assert notes(records).count("another run in the same file, 5 earlier lines left out") == 2


def test_command_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    path.write_text(history() + history(3))
    shown = call(monkeypatch, "diagnose", path)
    assert shown.code == 0
    assert "another run in the same file, 5 earlier lines left out" in shown.err
    assert "Its steps are epochs, counted from 1." in shown.err
    assert "imported: 3 steps, 3 epochs" in shown.out


def test_an_unfinished_row_is_counted(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "x", history() + "5,0.9,0.0")
    assert reader.torn_lines == 1
    assert len(losses(records)) == 5
