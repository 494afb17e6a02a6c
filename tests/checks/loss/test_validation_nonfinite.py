from __future__ import annotations

import math

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "validation-nonfinite"


def run(*losses: float, **more):
    """One evaluation every 50 steps."""
    evals = {50 * (n + 1): {"val_loss": loss} for n, loss in enumerate(losses)}
    return records(loss=[1.0 / n for n in range(1, 50 * len(losses) + 1)], evals=evals, **more)


def test_three_in_a_row_are_a_warning():
    alert = assert_fires(
        SLUG, run(1, 0.9, 0.8, 0.7, 0.6, *[math.nan] * 3), severity="warning", since=(300, 300)
    )
    assert alert.since_step == 300
    assert "0.6" in alert.detail


def test_infinity_counts_and_is_named():
    assert "infinite" in assert_fires(SLUG, run(1, 0.9, math.inf), severity="info").title


def test_one_is_noted_and_resolves():
    _, alerts = run_check(SLUG, run(1, 0.9, 0.8, 0.7, 0.6, math.nan, 0.5))
    assert [(a.state, a.severity) for a in alerts] == [("opened", "info"), ("resolved", "info")]


def test_near_miss_two_in_a_row():
    assert_quiet(SLUG, run(1, 0.9, 0.8, 0.7, 0.6, math.nan, math.nan), allow_info=True)


def test_near_miss_the_first_evaluations():
    assert_quiet(SLUG, run(*[math.nan] * 5, 0.5), allow_info=True)
    assert_fires(SLUG, run(*[math.nan] * 5), severity="warning", limits={"early": 0})


def test_numbers_are_quiet():
    assert_quiet(SLUG, run(1, 0.9, 5e30, 1e-30))


def test_not_run_without_evaluations():
    engine, alerts = run_check(SLUG, records(loss=[1.0] * 100))
    assert alerts == []
    assert engine.not_run() == {SLUG: "no `val_loss`"}
