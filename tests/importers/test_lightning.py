import math
from pathlib import Path

from tests.importers.reading import evals, losses, notes, of_kind, opened
from torchwatch import diagnose
from torchwatch.records import Epoch, Interval, Step

HEAD = "epoch,lr-AdamW,step,train/loss_epoch,train/loss_step,val/loss,val/mae\n"


def sparse(epochs: int = 4, last_mean: str | None = None) -> str:
    """As CSVLogger writes: rates without an epoch, steps, evaluation and epoch mean in rows of their own."""
    rows = [HEAD]
    for epoch in range(epochs):
        base, level = 46 * epoch, 1.0 / (epoch + 1)
        rows.append(f",{0.01 / (epoch + 1)},{base},,,,\n")
        rows += [f"{epoch},,{base + at},,{level + at / 1000},,\n" for at in (19, 39)]
        rows.append(f"{epoch},,{base + 45},,,{level * 2},0.5\n")
        mean = last_mean if last_mean is not None and epoch == epochs - 1 else level
        rows.append(f"{epoch},,{base + 45},{mean},,,\n")
    return "".join(rows)


def test_sparse_rows_join_by_step(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "x", sparse())
    assert reader.format == "Lightning metrics"
    steps = of_kind(records, Step)
    assert [s.step for s in steps] == [19, 39, 65, 85, 111, 131, 157, 177]
    assert steps[2].loss == 0.519
    # Rates stand in rows without epoch and loss.
    assert [s.lr for s in steps[:3]] == [[0.01], [0.01], [0.005]]
    assert [s.epoch for s in steps] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert evals(records, "val_loss") == {45: 2.0, 91: 1.0, 137: 0.666666667, 183: 0.5}
    assert evals(records, "val_mae")[45] == 0.5
    assert [e.epoch for e in of_kind(records, Epoch)] == [0, 1, 2, 3]
    assert [i.closed_by for i in of_kind(records, Interval)] == ["steps", "epoch"] * 4


def test_the_twin_with_more_rows_is_the_loss(tmp_path: Path) -> None:
    head = "epoch,step,train_loss_epoch,train_loss_step\n"
    rows = [f"{e},{14 * e + 13},{1 / (e + 1)},\n" for e in range(20)]
    rows.insert(4, "3,49,,0.3\n")
    rows.insert(9, "7,99,,0.1\n")
    _, records = opened(tmp_path / "x", head + "".join(rows))
    assert len(losses(records)) == 20
    assert losses(records)[13] == 1.0
    assert 49 not in losses(records)


def test_an_epoch_mean_of_nan_tells_of_a_step_that_was_not_logged(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", sparse(last_mean="nan"))
    assert math.isnan(losses(records)[183] or 0.0)
    found = {i.check: i for i in diagnose(tmp_path / "x").issues}
    assert found["loss-nonfinite"].severity == "critical"
    assert found["loss-nonfinite"].since_step == 183


def test_a_trailing_validate_row_is_not_a_second_evaluation(tmp_path: Path) -> None:
    for step in (183, 184):  # Lightning counts the step of `validate()` one further
        _, records = opened(tmp_path / "x", sparse() + f"4,,{step},,,0.1,0.2\n")
        assert evals(records, "val_loss")[183] == 0.5
        assert 184 not in evals(records, "val_loss")
        assert "repeated" in notes(records)


def test_a_step_that_goes_back_without_a_loss_is_no_restart(tmp_path: Path) -> None:
    content = "epoch,hp_metric,loss,step,val_loss\n,30.1,,0,\n"
    content += "".join(f"0,,{-6 - i / 10},{49 + 50 * i},\n" for i in range(20))
    content += ",-7.9,,1000,\n0,,,999,-7.9\n"
    _, records = opened(tmp_path / "x", content)
    assert len(losses(records)) == 20
    assert evals(records, "val_loss") == {999: -7.9}


def test_negative_losses(tmp_path: Path) -> None:
    rows = "".join(f"{i // 50},{10 * i},{-20 * (1 - math.exp(-i / 40))}\n" for i in range(300))
    _, records = opened(tmp_path / "x", "epoch,step,loss\n" + rows)
    assert (losses(records)[2990] or 0) < -19
    found = diagnose(tmp_path / "x")
    assert found.severities["warning"] == found.severities["critical"] == 0


def test_a_run_that_begins_at_step_140749(tmp_path: Path) -> None:
    rows = "".join(f"12,{140_749 + 50 * i},{1.0 - i / 1000}\n" for i in range(40))
    _, records = opened(tmp_path / "x", "epoch,step,train_loss\n" + rows)
    assert min(losses(records)) == 140_749
    assert of_kind(records, Interval)[0].first_step == 140_700


def test_terms_without_a_total_are_said(tmp_path: Path) -> None:
    head = "epoch,step,train_classification_loss,train_regression_loss,val_classification_loss\n"
    rows = "".join(f"0,{i},5.3,{700 + i},\n" for i in range(30)) + "0,30,,,5.2\n"
    _, records = opened(tmp_path / "x", head + rows)
    assert losses(records)[3] == 5.3
    assert (of_kind(records, Step)[3].metrics or {})["train_regression_loss"] == 703
    assert "not train_regression_loss; --columns loss=…" in notes(records)


def test_data_loss_beside_a_mean(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", "data_loss,epoch,mean_loss,step\n3,0,2,18\n1,1,0.5,37\n")
    assert losses(records) == {18: 2, 37: 0.5}
