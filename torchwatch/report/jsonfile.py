"""The report as data: ``report.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from torchwatch.records import Record, encode
from torchwatch.report.words import not_examined

if TYPE_CHECKING:
    from torchwatch.report.report import Report


def report_json(report: Report) -> dict[str, Any]:
    """Everything the report says as strict JSON values; issues are the objects of alert lines."""
    found, diagnosis = report.found, report.diagnosis
    return {
        **diagnosis.as_json(),
        "file": str(report.path),
        "verdict": {
            "headline": report.verdict.headline,
            "tone": report.verdict.tone,
            "status": report.verdict.status,
            "ended": report.verdict.ended,
            "remarks": list(report.verdict.remarks),
        },
        "header": _plain(found.header),
        "layout": None if found.layout is None else _plain(found.layout),
        "end": None if found.end is None else _plain(found.end),
        "autopsy": None if report.autopsy is None else report.autopsy.as_json(),
        "not_examined": [{"examination": n, "tells": tells} for n, tells in not_examined(report.autopsy)],
    }


def render(report: Report) -> bytes:
    """``report.json``, indented."""
    return indented(report_json(report))


def indented(values: dict[str, Any]) -> bytes:
    """Strict JSON, two spaces deep, ending in a newline."""
    return orjson.dumps(
        values,
        option=orjson.OPT_INDENT_2
        | orjson.OPT_SERIALIZE_NUMPY
        | orjson.OPT_NON_STR_KEYS
        | orjson.OPT_APPEND_NEWLINE,
    )


def _plain(record: Record) -> dict[str, Any]:
    """The record as its line in the run file."""
    plain: dict[str, Any] = orjson.loads(encode(record))
    return plain
