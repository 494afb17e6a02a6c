"""diminishing-returns: training goes on for very little."""

import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "diminishing-returns"


def validated(values, **more):
    """An evaluation after every 20 steps."""
    evals = {20 * (i + 1): {"val_loss": float(v)} for i, v in enumerate(values)}
    return records([1.0] * (20 * len(values)), interval_steps=20, evals=evals, **more)


def intervals(values, **more):
    return records(np.repeat(values, 20).tolist(), interval_steps=20, **more)


FLAT = [2.0, 1.2, 0.8, 0.6, 0.5, 0.5, 0.49, 0.51, 0.5, 0.49, 0.505, 0.5]


def test_fires_on_validation():
    alert = assert_fires(SLUG, validated(FLAT), severity="info", layer=None, since=(80, 160))
    assert "val_loss: 2 at first" in alert.detail
    assert alert.metric == "val_loss"


def test_fires_on_intervals_where_nothing_is_validated():
    alert = assert_fires(SLUG, intervals(FLAT), severity="info")
    assert alert.metric == "loss per interval"
    assert "They took 600 ms." in alert.detail, "three intervals of twenty steps of 10 ms"


def test_quiet_while_the_loss_falls():
    assert_quiet(SLUG, validated(np.linspace(2.0, 0.5, 14)))


def test_near_miss_it_falls_slowly_but_for_certain():
    slow = [2.0, 1.0, 0.6, *(0.5 - 0.01 * i for i in range(10))]
    assert_quiet(SLUG, validated(slow))
    assert_fires(SLUG, validated(slow), limits={"slope_points": 0})


def test_near_miss_one_of_the_last_points_brought_something():
    lively = [2.0, 1.2, 1.0, 1.0, 0.9, 0.92, 0.93, 0.82, 0.83, 0.84, 0.73, 0.74, 0.75, 0.6]
    assert_quiet(SLUG, validated(lively), limits={"slope_points": 0})


def test_near_miss_nothing_was_gained():
    assert_quiet(SLUG, validated([2.0, 1.95, 1.96, 1.95, 1.97, 1.95, 1.96, 1.95]))
    assert_fires(SLUG, validated([2.0, 1.95, 1.96, 1.95, 1.97, 1.95, 1.96, 1.95]), limits={"least_gain": 0})
    assert_quiet(SLUG, validated([1.0, *[1.1, 1.2] * 5]), limits={"least_gain": 0})


def test_near_miss_too_few_points():
    assert_quiet(SLUG, validated([2.0, 1.0, 1.0, 1.0, 1.0]), ready=False)


def test_near_miss_the_run_is_young():
    assert_quiet(SLUG, validated(FLAT, declare={"planned_steps": 2000}))
    assert_fires(SLUG, validated(FLAT, declare={"planned_steps": 2000}), limits={"planned_share": 0})


def test_a_healthy_curve_with_noise_is_at_most_an_info():
    rng = np.random.default_rng(0)
    curve = 0.3 + 2 * np.exp(-np.arange(30) / 5)
    assert_quiet(SLUG, validated(curve * rng.normal(1, 0.02, 30)), allow_info=True)


def test_limits():
    assert_quiet(SLUG, validated(FLAT), limits={"points": 11}, ready=False)
    assert_fires(SLUG, validated(np.linspace(2.0, 0.5, 14)), limits={"share": 0.2, "slope_points": 0})
    assert_quiet(
        SLUG, validated([v if i != 11 else float("nan") for i, v in enumerate(FLAT)]), allow_info=True
    )
