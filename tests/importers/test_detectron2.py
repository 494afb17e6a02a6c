from pathlib import Path

from tests.importers.reading import evals, json_lines, losses, notes, of_kind, opened
from torchwatch.records import Step


def row(iteration: int, loss: float, **more: float) -> dict[str, float]:
    parts = {"loss_cls": loss / 2, "loss_box_reg": loss / 2, "total_loss": loss}
    speed = {"data_time": 0.002, "time": 0.21, "eta_seconds": 60.0}
    return {**speed, "iteration": iteration, **parts, "lr": 1e-5 * iteration, **more}


def test_the_total_is_the_loss_and_time_is_no_clock(tmp_path: Path) -> None:
    rows = [row(20 * i + 19, 2.0 / (i + 1)) for i in range(15)]
    reader, records = opened(tmp_path / "metrics.json", json_lines(rows))
    assert reader.format == "detectron2 metrics"
    assert losses(records)[19] == 2.0
    step = of_kind(records, Step)[0]
    assert step.time_s == 0.0
    assert step.metrics == {"loss_cls": 1.0, "loss_box_reg": 1.0}
    assert step.lr == [1.9e-4]


def test_a_second_run_in_the_file_replaces_the_first(tmp_path: Path) -> None:
    first = [row(20 * i + 19, 2.0) for i in range(15)]
    second = [row(20 * i + 19, 1.0) for i in range(10)]
    _, records = opened(tmp_path / "x", json_lines([*first, *second]))
    assert len(losses(records)) == 10
    assert set(losses(records).values()) == {1.0}
    assert "begins again at 19: another run in the same file, 15 earlier lines left out" in notes(records)


def test_evaluations_by_task(tmp_path: Path) -> None:
    scores = {"iteration": 59, "bbox/AP": 31.5, "bbox/AP50": 52.0, "data_time": 0.1}
    rows = [row(19, 2.0), row(39, 1.5), row(59, 1.2), scores, row(79, 1.0)]
    _, records = opened(tmp_path / "x", json_lines(rows))
    assert evals(records, "val_bbox/AP") == {59: 31.5}
    assert sorted(losses(records)) == [19, 39, 59, 79]
