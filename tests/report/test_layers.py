from __future__ import annotations

from torchwatch.report.document import Table, Text
from torchwatch.report.layers import layer_table


def rows(report) -> list[list[str]]:
    table = next(b for b in layer_table(report) if isinstance(b, Table))
    return table.rows


def test_the_sick_layer_comes_first_then_the_order_of_the_forward_pass(report_of):
    found = rows(report_of("faulty"))
    sick = {row[0] for row in found if row[3]}
    assert {row[0] for row in found[: len(sick)]} == sick
    dead = next(row for row in found if row[0] == "relu2")
    assert "dead-units" in dead[3]
    assert dead[7] == "100 %"
    healthy = [r[0] for r in rows(report_of("healthy"))]
    assert healthy == [
        "conv1",
        "relu1",
        "conv2",
        "relu2",
        "pool",
        "classifier.0",
        "classifier.1",
        "classifier.2",
    ]


def test_numbers_are_the_first_and_last_measured(report_of):
    report = report_of("faulty")
    conv1 = next(r for r in rows(report) if r[0] == "conv1")
    assert conv1[2] == "80"
    assert float(conv1[4]) > 1e-3
    assert conv1[5] == "0"
    assert conv1[7] == "–"


def test_of_many_layers_forty_are_listed_and_that_is_said(report_of):
    blocks = layer_table(report_of("wide"))
    assert isinstance(blocks[0], Text)
    assert "Shown are 40 of 308." in blocks[0].text
    assert len(rows(report_of("wide"))) == 40


def test_no_layout_is_said(tmp_path):
    from tests.helpers_report import Plan, header, write
    from torchwatch.report.report import build_report

    report = build_report(write(tmp_path / "a.jsonl", [header(Plan())]))
    assert "no layout" in layer_table(report)[0].text
