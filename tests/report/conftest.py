"""Reports of planned runs, each built once per session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.helpers_report import Plan, run, write
from torchwatch.report.plots import Failure, Picture, draw_all
from torchwatch.report.report import Report, build_report

PLANS = {
    "healthy": Plan(),
    "faulty": Plan(dead_from=120, overfit=True),
    "crashed": Plan(nan_from=200, status="crashed"),
    "unfinished": Plan(epochs=2, status=None),
    "hostile": Plan(hostile=True, nan_from=100, dead_from=50, status="crashed"),
    "one-step": Plan(epochs=1, steps_per_epoch=1),
    "empty": Plan(epochs=0, status=None),
    "no-columns": Plan(columns=False, evals=False, fast=True),
    "wide": Plan(epochs=2, layers=300, dead_from=40),
}


@pytest.fixture(scope="session")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """``report_of("faulty")``: the report of that plan."""
    directory: Path = tmp_path_factory.mktemp("runs")

    @cache
    def built(name: str) -> Report:
        return build_report(write(directory / f"{name}.jsonl", run(PLANS[name])))

    return built


@pytest.fixture(scope="session")
def pictures_of(report_of: Callable[[str], Report]) -> Callable[[str], dict[str, Picture | Failure]]:
    """``pictures_of("faulty")``: all plots of that plan's report."""

    @cache
    def drawn(name: str) -> dict[str, Picture | Failure]:
        return draw_all(report_of(name))

    return drawn
