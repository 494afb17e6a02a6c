from __future__ import annotations

from tests.helpers_report import Plan, header, write
from torchwatch.records import Interval
from torchwatch.report import style
from torchwatch.report.plots import throughput
from torchwatch.report.report import build_report


def axes_of(report):
    with style.themed(style.LIGHT):
        return throughput.draw(report, style.LIGHT).axes


def test_rate_starts_at_zero_and_waiting_is_in_percent(report_of):
    rate, waiting = axes_of(report_of("healthy"))
    assert rate.get_ylabel() == "samples / s"
    assert rate.get_ylim()[0] == 0
    assert rate.get_ylim()[1] > 830
    assert waiting.get_ylabel() == "waiting for data (%)"
    assert {round(p.get_height(), 6) for p in waiting.patches} == {5.0}


def test_steps_stand_in_for_samples_and_missing_waiting_is_said(tmp_path):
    lines = [header(Plan()), Interval(last_step=10, steps_per_s=3.0)]
    report = build_report(write(tmp_path / "a.jsonl", lines))
    (axes,) = axes_of(report)
    assert axes.get_ylabel() == "steps / s"
    assert "not measured" in throughput.caption(report)
