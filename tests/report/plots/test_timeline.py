from __future__ import annotations

import dataclasses

from torchwatch.report import style
from torchwatch.report.marks import Span
from torchwatch.report.plots import timeline


def axes_of(report):
    with style.themed(style.LIGHT):
        return timeline.draw(report, style.LIGHT).axes[0]


def test_one_row_per_check_earliest_on_top(report_of):
    spans = (
        Span("late", "critical", 90, None),
        Span("early", "info", 5, 20),
        Span("early", "warning", 30, None),
    )
    axes = axes_of(dataclasses.replace(report_of("healthy"), spans=spans))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["early", "late"]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["critical", "warning", "info"]
    bars = [tuple(x.get_xdata()) for x in axes.get_lines() if len(x.get_xdata()) == 2]
    assert bars == [(90, 360), (5, 20), (30, 360)]
    arrows = [x for x in axes.get_lines() if x.get_marker() == ">"]
    assert len(arrows) == 2


def test_real_issues_have_their_rows(report_of):
    report = report_of("faulty")
    assert {t.get_text() for t in axes_of(report).get_yticklabels()} == {
        i.check for i in report.diagnosis.issues
    }


def test_no_issue_draws_nothing(report_of):
    assert timeline.draw(report_of("healthy"), style.LIGHT) is None
