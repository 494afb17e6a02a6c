from __future__ import annotations

import pytest

from tests.helpers_report import Plan, run, write
from torchwatch.errors import NewerSchema, NotARunFile
from torchwatch.report.report import build_report


def test_one_pass_gives_diagnosis_and_plot_data(report_of):
    report = report_of("faulty")
    assert report.title == "digits-cnn"
    assert report.found.steps == report.diagnosis.steps == 360
    assert report.layer_severity["relu2"] == "warning"
    assert report.layer_names[0] == "conv1"
    assert {m.number for m in report.marks} == {i.id for i in report.diagnosis.incidents}
    assert {s.check for s in report.spans} == {i.check for i in report.diagnosis.issues}


def test_gzipped_run_is_read_alike(tmp_path, report_of):
    packed = build_report(write(tmp_path / "a.jsonl.gz", run(Plan())))
    plain = report_of("healthy")
    assert packed.found.steps == plain.found.steps
    assert packed.verdict == plain.verdict


def test_every_record_after_the_header_is_told(tmp_path):
    lines = list(run(Plan(epochs=1)))
    seen: list[object] = []
    build_report(write(tmp_path / "a.jsonl", lines), seen.append)
    assert len(seen) == len(lines) - 1


def test_resolved_issues_end_and_open_ones_do_not(report_of):
    report = report_of("faulty")
    for span, issue in zip(report.spans, report.diagnosis.issues, strict=True):
        assert span.since == issue.since_step
        assert (span.until is None) == (issue.state != "resolved")


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", NotARunFile), (b"\x00\xff", NotARunFile), (b'{"kind":"run","schema":99}\n', NewerSchema)],
)
def test_foreign_files_are_refused(tmp_path, content: bytes, error: type[Exception]):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(error):
        build_report(path)
