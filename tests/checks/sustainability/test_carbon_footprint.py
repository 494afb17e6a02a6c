"""carbon-footprint: what the run used."""

import pytest

from tests.checks.energy import metered
from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "carbon-footprint"


def test_the_sum_is_told_at_the_end():
    alert = assert_fires(SLUG, metered(), severity="info", layer=None)
    assert alert.step == 200
    assert alert.title == "The run used 1 Wh and 3.6 g of CO2"
    assert "18 W on average" in alert.detail
    assert "0.1562 Wh and 0.5625 g per 1,000 samples" in alert.detail
    assert "Estimated; CO2 for the world's average grid" in alert.detail
    assert alert.value == pytest.approx(0.0036)
    assert alert.threshold is None


@pytest.mark.parametrize(
    ("source", "country", "said"),
    [
        ("measured", "deu", "Measured; CO2 for DEU's grid"),
        ("mixed", None, "Partly measured, partly estimated"),
    ],
)
def test_it_says_where_the_numbers_are_from(source, country, said):
    assert said in assert_fires(SLUG, metered(source=source, country=country)).detail


def test_samples_are_not_needed():
    assert "per 1,000" not in assert_fires(SLUG, metered(samples=None)).detail


@pytest.mark.parametrize(
    ("limits", "metric"),
    [({"co2_g": 3.5}, "co2_kg"), ({"energy_wh": 0.99}, "energy_j")],
    ids=["co2", "energy"],
)
def test_a_budget_makes_it_a_warning(limits, metric):
    alert = assert_fires(SLUG, metered(), severity="warning", limits=limits)
    assert alert.metric == metric
    assert "more than its budget" in alert.title
    assert alert.value > alert.threshold


@pytest.mark.parametrize("limits", [{"co2_g": 3.7}, {"energy_wh": 1.01}])
def test_near_miss_within_the_budget(limits):
    assert_quiet(SLUG, metered(), allow_info=True, limits=limits)


def test_the_first_intervals_do_not_know():
    some = metered(joules=lambda i: None if i <= 3 else 360.0)
    alert = assert_fires(SLUG, some, limits={"least_wh": 0})
    assert "18 W" in alert.detail
    assert "Not known for 1 min 00 s" in alert.detail
    assert "Not known" not in assert_fires(SLUG, metered()).detail


def test_near_miss_next_to_nothing():
    assert_quiet(SLUG, metered(joules=3.0))
    assert_fires(SLUG, metered(joules=3.0), limits={"least_wh": 0})
    assert_fires(SLUG, metered(joules=3.0), severity="warning", limits={"co2_g": 0.01})


def test_not_run_without_energy():
    assert assert_quiet(SLUG, records([1.0] * 100), ready=False).not_run()[SLUG] == "no `energy_j`"
