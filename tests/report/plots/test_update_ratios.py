from __future__ import annotations

from tests.helpers_report import Plan, header, write
from torchwatch.records import Step
from torchwatch.report import style
from torchwatch.report.plots import update_ratios
from torchwatch.report.report import build_report


def drawn(report):
    with style.themed(style.LIGHT):
        return update_ratios.draw(report, style.LIGHT)


def test_whole_model_above_layers_below(report_of):
    figure = drawn(report_of("healthy"))
    assert figure.axes[0].get_ylabel() == "‖Δw‖ / ‖w‖, whole model"
    assert figure.axes[1].get_title(loc="left") == "Update ratio per layer"


def test_without_columns_there_is_one_panel(tmp_path):
    lines = [header(Plan()), Step(step=1, update_ratio=1e-3), Step(step=2, update_ratio=0.0)]
    report = build_report(write(tmp_path / "a.jsonl", lines))
    assert len(drawn(report).axes) == 1
    assert "worst of" not in update_ratios.caption(report)


def test_nothing_recorded_draws_nothing(report_of):
    assert drawn(report_of("no-columns")) is None
