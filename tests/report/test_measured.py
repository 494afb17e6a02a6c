from __future__ import annotations

import math

from tests.helpers_report import Plan, header, write
from torchwatch.records import Eval, Step
from torchwatch.report.document import Table, Text
from torchwatch.report.measured import loss_table, machine_table
from torchwatch.report.report import build_report


def cells(blocks) -> dict[str, list[str]]:
    return {row[0]: row[1:] for b in blocks if isinstance(b, Table) for row in b.rows}


def built(tmp_path, *lines):
    return build_report(write(tmp_path / "a.jsonl", [header(Plan()), *lines]))


def test_first_lowest_highest_and_last_of_a_loss(tmp_path):
    losses = [3.0, 1.0, 5.0, 2.0]
    report = built(tmp_path, *(Step(step=i + 1, loss=v) for i, v in enumerate(losses)))
    assert cells(loss_table(report))["loss"] == ["training step", "4", "3", "1", "2", "5", "3", "2"]


def test_nan_at_the_end_is_not_hidden_behind_the_last_finite_value(tmp_path):
    report = built(
        tmp_path,
        Step(step=1, loss=1.0),
        Step(step=2, loss=math.nan),
        Eval(step=2, metrics={"val_loss": math.inf}),
    )
    found = cells(loss_table(report))
    assert found["loss"][-1] == "NaN or ∞"
    assert found["val_loss"][1:] == ["1", "NaN or ∞", "–", "–", "–", "–", "NaN or ∞"]


def test_no_loss_is_said(tmp_path):
    (block,) = loss_table(built(tmp_path, Step(step=1)))
    assert isinstance(block, Text)
    assert "watch.log(loss=loss)" in block.text


def test_throughput_memory_and_cost(report_of):
    found = cells(machine_table(report_of("healthy")))
    assert found["throughput"] == ["825 samples/s", "median of 8 intervals"]
    assert found["waiting for data"][0] == "5.0 %"
    assert found["memory of the process"] == ["411.2 MB", "highest; 410.2 MB at first, 411.2 MB at last"]
    assert found["cost of watching"][0] == "0.80 %"


def test_waiting_that_was_not_measured_is_not_shown_as_zero(tmp_path):
    found = cells(machine_table(built(tmp_path, Step(step=1))))
    assert found == {"waiting for data": ["not measured", "wrap the loader in watch.batches"]}
