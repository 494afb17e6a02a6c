"""How the run was configured: what the header and the last layout say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchwatch.report.document import Block, Fold, Table, Text

if TYPE_CHECKING:
    from torchwatch.report.report import Report

_MOST = 200


def configured(report: Report) -> list[Block]:
    """Run, hyperparameters, optimizers, software, device, coverage and configuration."""
    header, layout = report.found.header, report.found.layout
    blocks: list[Block] = [_pairs("run", _run(report))]
    blocks.append(
        _pairs("hyperparameter", header.hyperparameters) if header.hyperparameters else _none_given()
    )
    if layout is not None:
        optimizers = {
            f"{x.type} group {i}": group for x in layout.optimizers for i, group in enumerate(x.groups)
        }
        if optimizers:
            blocks.append(_pairs("optimizer", optimizers))
        if layout.coverage:
            blocks.append(_pairs("coverage: what was measured", layout.coverage))
    blocks += [
        Fold(title, [_pairs("name", values)])
        for title, values in (
            ("Software", header.software),
            ("Device", header.device),
            ("Configuration of the recording", header.config),
            ("Limits of the checks", header.limits),
        )
        if values
    ]
    return blocks


def _run(report: Report) -> dict[str, Any]:
    header, found = report.found.header, report.found
    return {
        "file": str(report.path),
        "run id": header.run_id,
        "started": header.time,
        "model": header.model,
        "parameters": f"{header.parameters:,}",
        "rank": f"{header.rank} of {header.world}",
        "steps": f"{found.steps:,}",
        "recorded with": f"torchwatch {header.torchwatch}",
        "checks ignored": ", ".join(map(str, header.ignore)) or "none",
    }


def _none_given() -> Block:
    return Text("No hyperparameters were given: Watcher(…, hyperparameters={…}) records them.", quiet=True)


def _pairs(head: str, values: Mapping[str, Any]) -> Table:
    rows = [[str(k), _text(v)] for k, v in list(values.items())[:_MOST]]
    if len(values) > _MOST:
        rows.append(["…", f"{len(values) - _MOST} more, all in report.json"])
    return Table([head, "value"], rows, names=frozenset({0}))


def _text(value: object) -> str:
    """A plain value as it is, anything nested as JSON."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_text(v)}" for k, v in value.items()) or "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
