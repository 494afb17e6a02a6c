from __future__ import annotations

from tests.helpers_report import Plan, header, write
from torchwatch.records import Step
from torchwatch.report import style
from torchwatch.report.plots import gradient_norm
from torchwatch.report.report import build_report


def test_before_and_after_clipping_are_two_lines(tmp_path):
    steps = [Step(step=i, grad_norm=1.0, grad_norm_preclip=float(i)) for i in range(1, 5)]
    report = build_report(write(tmp_path / "a.jsonl", [header(Plan()), *steps]))
    with style.themed(style.LIGHT):
        (axes,) = gradient_norm.draw(report, style.LIGHT).axes
    assert [x.get_label() for x in axes.get_lines()] == ["before clipping", "as the optimizer sees it"]
    assert "clipped" in gradient_norm.caption(report)


def test_without_clipping_the_caption_says_so(report_of):
    assert "no clipping was observed" in gradient_norm.caption(report_of("healthy"))


def test_nothing_recorded_draws_nothing(report_of):
    assert gradient_norm.draw(report_of("no-columns"), style.LIGHT) is None
