from __future__ import annotations

from tests.helpers_report import Plan, header, write
from torchwatch.records import Eval, Step
from torchwatch.report import style
from torchwatch.report.plots import metrics
from torchwatch.report.report import build_report


def test_training_and_validation_of_one_metric_share_a_panel(report_of):
    with style.themed(style.LIGHT):
        (axes,) = metrics.draw(report_of("healthy"), style.LIGHT).axes
    assert axes.get_title(loc="left") == "accuracy"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["accuracy", "val_accuracy"]


def test_losses_of_evaluations_are_not_drawn_again(report_of):
    assert set(metrics._panels(report_of("healthy"))) == {"accuracy"}


def test_dozens_of_metrics_are_cut_and_that_is_said(tmp_path):
    lines = [header(Plan()), Step(step=1), Eval(step=1, metrics={f"val_m{i}": 1.0 for i in range(30)})]
    report = build_report(write(tmp_path / "a.jsonl", lines))
    with style.themed(style.LIGHT):
        assert len([a for a in metrics.draw(report, style.LIGHT).axes if a.get_visible()]) == 12
    assert "the first 12 of 30" in metrics.caption(report)
