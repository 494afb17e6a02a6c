import math
from pathlib import Path

from tests.importers.reading import evals, losses, notes, of_kind, opened
from torchwatch import diagnose
from torchwatch.records import Epoch, Eval, Step

HEADS = (
    "epoch", "time", "train/box_loss", "train/cls_loss", "train/dfl_loss", "metrics/precision(B)",
    "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "val/box_loss", "val/cls_loss",
    "val/dfl_loss", "lr/pg0", "lr/pg1", "lr/pg2",
)  # fmt: skip


def results(
    epochs: int = 30, first: int = 1, *, padded: bool = False, val: dict[int, list[object]] | None = None
) -> str:
    """A healthy detection training; ``val``: other validation losses of some epochs."""
    lines = [[*HEADS]]
    for i in range(epochs):
        level = 1.0 + 2.0 * math.exp(-i / 8)
        lr0 = max(0.01, 0.07 - 0.02 * i)  # the group of biases warms down
        lr1 = min(0.01, 0.003 + 0.003 * i)
        known = (val or {}).get(first + i, [level, level / 2, 0.9])
        score = [0.8, 0.7, 0.6 + i / 100, 0.4 + i / 100]
        cells = [first + i, 10.5 * (i + 1), level, level / 3, 1.1, *score, *known, lr0, lr1, lr1]
        lines.append([str(c) for c in cells])
    return "".join(",".join(f"{c:>24}" if padded else c for c in row) + "\n" for row in lines)


def test_losses_are_sums_of_their_parts(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "x", results())
    assert reader.format == "Ultralytics results"
    assert losses(records)[1] == 3.0 + 1.0 + 1.1
    assert evals(records, "val_loss")[1] == 3.0 + 1.5 + 0.9
    first = of_kind(records, Step)[0]
    assert first.lr == [0.07, 0.003, 0.003]
    assert (first.metrics or {})["train/cls_loss"] == 1.0
    assert first.time_s == 10.5
    assert len(of_kind(records, Epoch)) == 30


def test_the_metric_that_chooses_the_best_checkpoint_comes_first(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", results())
    assert list(of_kind(records, Eval)[0].metrics)[:3] == ["val_loss", "val_mAP50-95(B)", "val_precision(B)"]


def test_padded_headers_and_a_first_epoch_of_0(tmp_path: Path) -> None:
    _, padded = opened(tmp_path / "a", results(padded=True))
    _, from_0 = opened(tmp_path / "b", results(first=0))
    _, plain = opened(tmp_path / "c", results())
    assert losses(padded) == losses(plain) == losses(from_0)
    assert "steps are epochs" in notes(plain)


def test_old_names_of_rates_and_other_tasks(tmp_path: Path) -> None:
    old = results().replace("lr/pg", "x/lr").replace("mAP50-95(B)", "mAP_0.5:0.95").replace("dfl", "obj")
    _, records = opened(tmp_path / "a", old)
    assert of_kind(records, Step)[0].lr == [0.07, 0.003, 0.003]
    assert list(of_kind(records, Eval)[0].metrics)[1] == "val_mAP_0.5:0.95"
    classify = (
        "epoch,train/loss,metrics/accuracy_top1,val/loss,lr/pg0\n1,5.5,0.1,5.4,0.01\n2,5.0,0.2,5.1,0.01\n"
    )
    _, records = opened(tmp_path / "b", classify)
    assert losses(records) == {1: 5.5, 2: 5.0}
    assert of_kind(records, Eval)[0].metrics == {"val_loss": 5.4, "val_accuracy_top1": 0.1}


def test_nan_inf_and_spikes_of_the_first_evaluations_are_no_warning(tmp_path: Path) -> None:
    wild: dict[int, list[object]] = {1: ["nan", "nan", "nan"], 2: ["inf", 3.0, 1.0], 3: [900.0, 2063.0, 5.0]}
    _, records = opened(tmp_path / "x", results(val=wild))
    seen = evals(records, "val_loss")
    assert math.isnan(seen[1] or 0.0)
    assert seen[2] == math.inf
    assert seen[3] == 2968.0
    found = diagnose(tmp_path / "x")
    assert found.severities["warning"] == found.severities["critical"] == 0


def test_all_zero_was_not_computed(tmp_path: Path) -> None:
    zero: dict[int, list[object]] = {e: [0, 0, 0] for e in range(1, 31)}
    _, records = opened(tmp_path / "x", results(val=zero))
    assert evals(records, "val_loss") == {}
    assert len(evals(records, "val_mAP50-95(B)")) == 30
    assert diagnose(tmp_path / "x").not_run["overfitting"] == "no `val_loss`"


def test_frozen_evaluations_count_once(tmp_path: Path) -> None:
    rows = results(first=1).splitlines()
    frozen = rows[3].split(",")[5:12]
    for at in range(4, 9):
        cells = rows[at].split(",")
        rows[at] = ",".join([*cells[:5], *frozen, *cells[12:]])
    _, records = opened(tmp_path / "x", "\n".join(rows))
    assert sorted(evals(records, "val_loss")) == [1, 2, 3, *range(9, 31)]
    assert "5 evaluations repeat" in notes(records)


def test_a_step_down_when_mosaic_closes_is_no_warning(tmp_path: Path) -> None:
    rows = results(60).splitlines()
    for at in range(51, 61):
        cells = rows[at].split(",")
        rows[at] = ",".join([*cells[:2], *(str(float(c) * 0.7) for c in cells[2:5]), *cells[5:]])
    opened(tmp_path / "x", "\n".join(rows))
    found = diagnose(tmp_path / "x")
    assert found.severities["warning"] == found.severities["critical"] == 0


def test_a_row_cut_off_is_counted(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "x", results()[:-60])
    assert reader.torn_lines == 1
    assert len(losses(records)) == 29
