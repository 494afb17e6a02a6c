"""wasted-carbon: what was used after the best."""

import pytest

from tests.checks.energy import metered
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "wasted-carbon"
OVER = [1.0, 0.8, 0.6, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]


def test_what_came_after_the_best_is_counted():
    alert = assert_fires(SLUG, metered(OVER), severity="info", since=(80, 80))
    assert alert.title == "0.6 Wh and 2.16 g of CO2 were used after the best validation"
    assert "60 % of the 1 Wh and 3.6 g of CO2 of the run" in alert.detail
    assert alert.value == pytest.approx(0.00216)


def test_dearer_epochs_count_more():
    alert = assert_fires(SLUG, metered(OVER, joules=lambda i: 3600.0 if i > 4 else 0.0))
    assert alert.title.startswith("6 Wh and 21.6 g")


def test_quiet_where_the_best_came_last_or_near_the_end():
    assert_quiet(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.5]))
    assert_quiet(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.65, 0.7]))
    assert_fires(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.65, 0.7]), limits={"evals": 2})


def test_not_run_without_energy_or_validation():
    assert_quiet(SLUG, metered(OVER, joules=None), ready=False)
    assert_quiet(SLUG, metered(), ready=False)
    assert_quiet(SLUG, metered(OVER, joules=0.0), ready=False)


def test_the_best_before_the_first_interval_ended():
    assert_fires(SLUG, metered([0.1, 0.8, 0.7, 0.6, 0.65]), since=(20, 20))
