from __future__ import annotations

import dataclasses

import pytest

from tests.helpers_report import Plan, run, write
from torchwatch.records import End
from torchwatch.report.report import build_report
from torchwatch.report.verdict import counted


@pytest.mark.parametrize(
    ("name", "tone", "status"),
    [
        ("healthy", "good", "finished"),
        ("faulty", "warning", "finished"),
        ("crashed", "critical", "crashed"),
        ("unfinished", "warning", "unfinished"),
        ("empty", "warning", "unfinished"),
    ],
)
def test_tone_and_status(report_of, name: str, tone: str, status: str):
    verdict = report_of(name).verdict
    assert (verdict.tone, verdict.status) == (tone, status)


def test_healthy_is_said_plainly(report_of):
    verdict = report_of("healthy").verdict
    assert verdict.headline == "No warning, no critical."
    assert verdict.ended == "Finished after 360 steps in 14.4 s."
    assert verdict.remarks == ()


def test_fault_is_the_headline(report_of):
    headline = report_of("faulty").verdict.headline
    assert "relu2" in headline
    assert "since step 1" in headline


def test_crash_comes_first_with_its_error(report_of):
    verdict = report_of("crashed").verdict
    assert verdict.headline.startswith("Crashed at step 360. Loss is NaN")
    assert "mat1 and mat2" in verdict.ended


def test_a_crash_without_any_issue_is_still_critical(tmp_path):
    verdict = build_report(write(tmp_path / "a.jsonl", run(Plan(epochs=1, status="crashed")))).verdict
    assert verdict.tone == "critical"
    assert verdict.headline == "Crashed at step 45. No warning, no critical."


def test_a_file_without_end_says_so(report_of):
    verdict = report_of("unfinished").verdict
    assert verdict.headline.startswith("Recording without an end.")
    assert "killed or is still running" in verdict.ended


def test_no_step_is_no_health(report_of):
    assert (
        report_of("empty").verdict.headline == "No training step was recorded, so there is nothing to judge."
    )


def test_gaps_are_said(tmp_path):
    lines = list(run(Plan(epochs=1)))
    assert isinstance(lines[-1], End)
    lines[-1] = dataclasses.replace(lines[-1], complete=False, lost_lines=3, dropped=1)
    path = write(tmp_path / "a.jsonl", lines)
    path.write_bytes(path.read_bytes() + b'{"kind":"st')
    remarks = build_report(path).verdict.remarks
    assert remarks == (
        "The recording is marked incomplete: 3 lines lost, details of 1 step dropped.",
        "Skipped as unreadable: 1 torn line.",
    )


@pytest.mark.parametrize(("number", "words"), [(0, "no step"), (1, "1 step"), (1500, "1,500 steps")])
def test_counted(number: int, words: str):
    assert counted(number, "step") == words
