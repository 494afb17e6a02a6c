from pathlib import Path

from tests.importers.reading import evals, json_lines, losses, notes, of_kind, opened
from torchwatch import diagnose
from torchwatch.records import End, Step


def row(epoch: int, loss: float, **more: float) -> dict[str, float]:
    return {"train_lr": 1e-4, "train_loss": loss, **more, "epoch": epoch, "n_parameters": 109_518}


def test_rows_are_epochs(tmp_path: Path) -> None:
    rows = [row(e, 1 / (e + 1), test_loss=2 / (e + 1), test_acc1=10.0 * e) for e in range(5)]
    reader, records = opened(tmp_path / "log.txt", json_lines(rows))
    assert reader.format == "MAE/DeiT log"
    assert reader.header.parameters == 109_518
    assert losses(records) == {1: 1.0, 2: 0.5, 3: 0.333333333, 4: 0.25, 5: 0.2}
    steps = of_kind(records, Step)
    assert [s.epoch for s in steps] == [0, 1, 2, 3, 4]
    assert steps[0].lr == [1e-4]
    assert evals(records, "test_loss")[5] == 0.4
    assert evals(records, "test_acc1")[5] == 40.0
    assert "n_parameters" not in (steps[0].metrics or {})
    assert of_kind(records, End)[0].epochs == 5


def test_epochs_that_a_resume_logs_again_replace_the_first_ones(tmp_path: Path) -> None:
    rows = [row(e, 1.0 - e / 100) for e in range(10)] + [row(e, 0.5 - e / 100) for e in range(7, 20)]
    _, records = opened(tmp_path / "x", json_lines(rows))
    seen = losses(records)
    assert sorted(seen) == list(range(1, 21))
    assert (seen[7], seen[8]) == (0.94, 0.43)
    assert "goes back to 8, as after a resume: 3 earlier lines" in notes(records)


def test_an_epoch_written_twice_counts_once(tmp_path: Path) -> None:
    rows = [row(0, 2.0), row(0, 2.0), *(row(e, 2.0 / (e + 1)) for e in range(1, 40))]
    _, records = opened(tmp_path / "x", json_lines(rows))
    assert len(losses(records)) == 40
    found = diagnose(tmp_path / "x")
    assert found.severities["warning"] == found.severities["critical"] == 0


def test_a_flat_loss_is_found_in_epochs_too(tmp_path: Path) -> None:
    rows = [row(e, 6.9077 + 1e-5 * (-1) ** e) for e in range(30)]
    opened(tmp_path / "x", json_lines(rows))
    assert "no-learning" in {i.check for i in diagnose(tmp_path / "x").issues}


def test_a_line_cut_off_is_counted_and_passed_over(tmp_path: Path) -> None:
    content = json_lines([row(e, 1.0) for e in range(5)])[:-20] + "\r\n"
    reader, records = opened(tmp_path / "x", content)
    assert reader.torn_lines == 1
    assert len(losses(records)) == 4
