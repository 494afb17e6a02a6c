from __future__ import annotations

import pytest

from tests.helpers_report import Plan, header, write
from torchwatch.records import Interval, System
from torchwatch.report import style
from torchwatch.report.plots import memory
from torchwatch.report.report import build_report


def axes_of(tmp_path, *lines):
    report = build_report(write(tmp_path / "a.jsonl", [header(Plan()), *lines]))
    with style.themed(style.LIGHT):
        return memory.draw(report, style.LIGHT).axes[0], memory.caption(report)


@pytest.mark.parametrize(
    ("size", "unit"), [(900, "B"), (4_000, "kB"), (2_000_000, "MB"), (3_000_000_000, "GB")]
)
def test_unit_fits_the_data_and_the_axis_begins_at_zero(tmp_path, size: int, unit: str):
    lines = [System(time_s=t, rss_bytes=size, cuda_allocated_bytes=size // 2) for t in (1.0, 2.0)]
    axes, caption = axes_of(tmp_path, *lines)
    assert axes.get_ylabel() == f"memory ({unit})"
    assert axes.get_ylim()[0] == 0
    assert len(axes.get_lines()) == 2
    assert axes.get_xlabel() == "time since start (s)"
    assert "once a second" in caption


def test_a_run_too_short_for_readings_falls_back_on_intervals(tmp_path):
    axes, caption = axes_of(tmp_path, Interval(last_step=5, rss_bytes=10**9))
    assert axes.get_xlabel() == "step"
    assert "each interval" in caption
