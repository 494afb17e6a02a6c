import json
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.importers.reading import evals, json_lines, losses, notes, of_kind, opened
from torchwatch import diagnose
from torchwatch.errors import ConfigError, NotARunFile
from torchwatch.importers import open_run
from torchwatch.records import Epoch, Step


def rows(count: int = 40) -> list[dict[str, float]]:
    return [
        {"it": i, "objective_a": 4.0 / (i + 1), "held_out": 5.0 / (i + 1), "rate": 0.1} for i in range(count)
    ]


def as_csv(table: list[dict[str, float]], separator: str = ",") -> str:
    lines = [separator.join(table[0])] + [separator.join(map(str, r.values())) for r in table]
    return "\n".join(lines) + "\n"


COLUMNS = {"loss": "objective_a", "step": "it", "val_loss": "held_out", "lr": "rate"}


@pytest.mark.parametrize(
    "content", [as_csv(rows()), json_lines(rows()), as_csv(rows(), ";"), as_csv(rows(), "\t")]
)
def test_columns_that_the_user_names(content: str, tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", content, COLUMNS)
    assert losses(records)[1] == 2.0
    assert evals(records, "val_loss")[4] == 1.0
    assert of_kind(records, Step)[0].lr == [0.1]


def test_columns_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    path.write_text(as_csv(rows()))
    wanted = "loss=objective_a, step=it,val_loss=held_out"
    shown = call(monkeypatch, "diagnose", path, "--columns", wanted, "--json")
    assert shown.code == 0
    assert json.loads(shown.out)["steps"] == 40
    shown = call(monkeypatch, "postmortem", path, "--columns", wanted, "--out", tmp_path / "out")
    assert shown.code == 0
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("loss=objective", "no column 'objective' with numbers in this log; did you mean 'objective_a'?"),
        ("loss=zzz", "there are it, objective_a, held_out, rate"),
        ("speed=rate", "a column can be loss, step, epoch, lr, time, grad_norm or a metric such as val_loss"),
        ("loss", "--columns needs WHAT=COLUMN"),
        (" , ", "--columns needs WHAT=COLUMN"),
        ("step=it", "no column that is surely the loss: name it with --columns loss=COLUMN"),
    ],
)
def test_columns_that_are_not_there(
    columns: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(as_csv(rows()))
    for command in ("diagnose", "postmortem"):
        shown = call(monkeypatch, command, path, "--columns", columns)
        assert (shown.code, shown.out) == (2, "")
        assert words in shown.err
        assert shown.err.count("\n") == 1


def test_without_columns_the_error_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(as_csv(rows()))
    with pytest.raises(NotARunFile, match=r"surely the loss.*numbers in: it, objective_a, held_out, rate"):
        open_run(path)


def test_a_loss_without_step_or_epoch_is_not_taken_for_a_log(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json_lines([{"loss": 0.5}, {"loss": 0.4}]))
    with pytest.raises(NotARunFile, match="surely the step"):
        open_run(path)
    _, records = opened(path, path.read_text(), {"loss": "loss"})  # said so: rows are counted
    assert losses(records) == {1: 0.5, 2: 0.4}
    assert "steps are rows" in notes(records)


@pytest.mark.parametrize(
    ("loss", "val"),
    [
        ("train_loss", "val_loss"),
        ("Loss/train", "Loss/val"),
        ("train/loss", "validation/loss"),
        ("trainLoss", "valid_loss"),
        ("avg_loss", "dev_loss"),
        ("total_loss", "val total_loss"),
        ("training loss", "eval_loss"),
        ("loss", "test_loss"),
    ],
)
def test_telling_names(loss: str, val: str, tmp_path: Path) -> None:
    table = [{"Epoch": e, loss: 1 / e, val: 2 / e, "Learning_Rate": 0.1} for e in range(1, 30)]
    _, records = opened(tmp_path / "x", as_csv(table))
    assert losses(records)[4] == 0.25
    assert [r.epoch for r in of_kind(records, Epoch)][:2] == [0, 1]
    assert of_kind(records, Step)[0].lr == [0.1]
    found = diagnose(tmp_path / "x")
    assert "overfitting" not in found.not_run


def test_smallest_and_largest_loss_are_not_the_loss(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", "epoch,min_loss,avg_loss,max_loss\n1,0.1,0.5,0.9\n2,0.1,0.4,0.9\n")
    assert losses(records) == {1: 0.5, 2: 0.4}


def test_a_scale_of_the_loss_is_no_loss(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", "epoch,loss_scale,cls_loss\n1,65536,0.5\n2,65536,0.4\n")
    assert losses(records) == {1: 0.5, 2: 0.4}


def test_nested_json_lines(tmp_path: Path) -> None:
    lines = [{"global_step": i, "train": {"loss": 1 / i}, "val": {"loss": 2 / i}} for i in range(1, 10)]
    _, records = opened(tmp_path / "x", json_lines(lines))
    assert losses(records)[2] == 0.5
    assert evals(records, "val_loss")[2] == 1.0


def test_dates_become_seconds_since_the_first(tmp_path: Path) -> None:
    lines = [{"step": i, "loss": 1.0, "timestamp": 1_766_310_282.5 + 10 * i} for i in range(5)]
    _, records = opened(tmp_path / "x", json_lines(lines))
    assert [s.time_s for s in of_kind(records, Step)] == [0, 10, 20, 30, 40]
    backwards = [{"step": i, "loss": 1.0, "time": t} for i, t in enumerate([1.0, 9.0, 3.0, 4.0])]
    _, records = opened(tmp_path / "y", json_lines(backwards))
    assert {s.time_s for s in of_kind(records, Step)} == {0.0}


def test_a_run_file_has_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind":"run","schema":1}\n')
    with pytest.raises(ConfigError, match="leave --columns out"):
        open_run(path, {"loss": "loss"})


def test_numbers_that_are_none(tmp_path: Path) -> None:
    content = "step,loss,name,empty\n1,1_000,a,\n2,2.5,b,\n1e400,3,c,\n-5,3,d,\n3,inf,e,\n"
    _, records = opened(tmp_path / "x", content)
    assert losses(records) == {2: 2.5, 3: float("inf")}
