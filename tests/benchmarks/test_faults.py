"""The registry of the fault bench is sound, and two quick faults are found."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.faults import report
from benchmarks.faults.bench import ARCHITECTURES, CLASSES, FAULTS, HEALTHY, Case, cases
from benchmarks.faults.rivals import RULES
from benchmarks.faults.run import jobs, plain, watching
from torchwatch.check import Severity, all_checks
from torchwatch.config import WatchConfig

ALL = list(cases())


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 40
    assert len(HEALTHY) >= 25
    assert {c.kind for c in FAULTS.values()} == set(CLASSES)


@pytest.mark.parametrize("case", FAULTS.values(), ids=lambda c: c.slug)
def test_faults_expect_checks_that_exist(case: Case) -> None:
    assert case.expect
    assert case.roots
    assert case.expect | case.roots <= set(all_checks())
    assert case.roots <= case.expect
    assert case.planted
    assert case.severity in {s.word for s in Severity}


@pytest.mark.parametrize("case", ALL, ids=lambda c: c.slug)
def test_trainings_are_of_a_known_family_and_configured_rightly(case: Case) -> None:
    assert case.arch in ARCHITECTURES
    WatchConfig(**case.config)
    assert set(case.config.get("limits", {})) <= set(all_checks())


def test_each_fault_is_trained_with_its_twin() -> None:
    planned = jobs(ALL, 2, "none")
    for slug in FAULTS:
        assert {(s, f) for name, s, f, _ in planned if name == slug} == {
            (0, True), (0, False), (1, True), (1, False)
        }  # fmt: skip
    assert {f for name, _, f, _ in planned if name in HEALTHY} == {False}


@pytest.mark.parametrize("slug", ["missing-zero-grad", "nan-in-a-batch"])
@pytest.mark.filterwarnings("ignore")
def test_a_quick_fault_is_found_and_its_twin_left_alone(slug: str) -> None:
    case = FAULTS[slug]
    rows = []
    for faulty in (True, False):
        row: dict[str, Any] = {"slug": slug, "seed": 0, "faulty": faulty, "budget": "none"}
        rows.append(row | plain(case, 0, faulty=faulty) | watching(case, 0, "none", faulty=faulty))
    figures = report.figures(rows)
    assert figures["recall"] == figures["root_top1"] == figures["healthy_without_warning"] == 1
    assert figures["classes"][case.kind]["in_time"] == 1
    assert all(r["replay"] for r in rows)
    assert rows[0]["score"] == rows[0]["watched_score"] or rows[0]["nonfinite"]
    assert rows[1]["score"] == rows[1]["watched_score"]  # watching changes nothing
    assert slug in report.text(rows)


def made(slug: str, faulty: bool, alerts: list[Any], rivals: dict[str, int] | None = None) -> report.Row:
    return {
        "slug": slug, "seed": 0, "faulty": faulty, "budget": "none", "score": 2.0 if faulty else 1.0,
        "error": None, "plain_s": 1.0, "onset": 1, "nonfinite": None, "best_val": None,
        "rivals": rivals or {}, "watched_s": 1.0, "steps": 100, "alerts": alerts,
        "intervals": [50, 100], "replay": True, "not_run": {},
        "incidents": [[a[0], a[1], a[3], []] for a in alerts],
    }  # fmt: skip


def test_an_alert_of_another_check_is_a_miss_and_on_a_twin_a_false_alarm() -> None:
    said = [["dead-units", "warning", 30, 20, None, "", "opened"]]
    rows = [made("lr-zero", f, said, {"AutoTrainer: six symptoms": 9}) for f in (True, False)]
    figures = report.figures(rows)
    assert figures["recall"] == 0
    assert figures["false_incidents_per_10000"] == 100
    assert figures["healthy_without_warning"] == 0
    theirs = report.rival_figures(rows)["AutoTrainer: six symptoms"]
    assert theirs["recall"] == 1
    assert theirs["apart_from_twin"] == 0
    assert set(report.rival_figures(rows)) >= {f"{g}: all of them" for g in RULES}


def test_an_info_does_not_count_where_a_warning_is_due() -> None:
    info, late = (["lr-zero", word, 60, 1, None, "", "opened"] for word in ("info", "warning"))
    assert report.figures([made("lr-zero", True, [info])])["recall"] == 0
    found = report.figures([made("lr-zero", True, [late])])
    assert found["recall"] == 1
    assert found["classes"]["wiring"]["median_steps"] == 59
    assert found["classes"]["wiring"]["in_time"] == 0
