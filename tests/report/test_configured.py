from __future__ import annotations

import dataclasses

from torchwatch.report.configured import configured
from torchwatch.report.document import Fold, Table


def tables(report) -> dict[str, dict[str, str]]:
    found = {}
    for block in configured(report):
        if isinstance(block, Fold):
            found[block.summary] = dict(block.blocks[0].rows)
        elif isinstance(block, Table):
            found[block.head[0]] = dict(block.rows)
    return found


def test_run_hyperparameters_optimizer_coverage_software_and_limits(report_of):
    found = tables(report_of("healthy"))
    assert found["run"]["model"] == "SmallCNN"
    assert found["run"]["parameters"] == "18,378"
    assert found["hyperparameter"] == {"lr": "0.001", "batch_size": "32"}
    assert found["optimizer"] == {"AdamW group 0": "lr=0.001"}
    assert found["coverage: what was measured"]["gradients"] == "ok"
    assert found["Software"]["torch"] == "2.13.0"
    assert "overfitting" in found["Limits of the checks"]
    assert "declare" in found["Configuration of the recording"]


def test_thousands_of_hyperparameters_are_cut_and_counted(report_of):
    report = report_of("healthy")
    header = dataclasses.replace(report.found.header, hyperparameters={f"h{i}": i for i in range(1000)})
    big = dataclasses.replace(report, found=dataclasses.replace(report.found, header=header))
    assert tables(big)["hyperparameter"]["…"] == "800 more, all in report.json"


def test_missing_hyperparameters_are_said(report_of):
    report = report_of("healthy")
    header = dataclasses.replace(report.found.header, hyperparameters={})
    bare = dataclasses.replace(report, found=dataclasses.replace(report.found, header=header))
    assert any("hyperparameters={…}" in getattr(b, "text", "") for b in configured(bare))
