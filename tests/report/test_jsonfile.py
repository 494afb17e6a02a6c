from __future__ import annotations

import orjson
import pytest

from torchwatch.records import Alert, decode
from torchwatch.report.jsonfile import render, report_json


@pytest.mark.parametrize("name", ["faulty", "healthy", "hostile", "empty"])
def test_report_json_is_strict_and_complete(report_of, name: str):
    body = orjson.loads(render(report_of(name)))
    assert {
        "issues", "incidents", "health_score", "not_run", "not_examined", "autopsy", "verdict", "header",
        "layers",
    } <= body.keys()  # fmt: skip
    assert body["autopsy"] is None
    assert len(body["not_examined"]) >= 10


def test_issues_are_the_objects_of_alert_lines(report_of):
    report = report_of("faulty")
    issues = report_json(report)["issues"]
    assert issues
    for issue, alert in zip(issues, report.diagnosis.issues, strict=True):
        back = decode(orjson.dumps(issue))
        assert isinstance(back, Alert)
        assert back == alert


def test_nan_in_the_recorded_end_stays_valid_json(report_of):
    body = orjson.loads(render(report_of("crashed")))
    assert body["end"]["status"] == body["verdict"]["status"] == "crashed"
    assert "train.py" in body["end"]["traceback"]
