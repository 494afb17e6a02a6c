import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "lr-too-high"


def swinging(n=24, swing=0.2, level=1.0, per=20, noise=0.05, seed=0):
    """Per interval ``level`` times 1 ± ``swing``, with noisy steps."""
    rng = np.random.default_rng(seed)
    means = level * (1 + swing * (-1.0) ** np.arange(n)) * np.ones(n)
    return np.repeat(means, per) * (1 + noise * rng.standard_normal(n * per))


def run(loss, update_ratio=0.05, **options):
    options = {"interval_steps": 20} | options
    return records(loss, update_ratio=update_ratio, **options)


@pytest.mark.parametrize("epoch_steps", [None, 20])
def test_large_steps_that_lead_nowhere_are_a_warning(epoch_steps):
    alert = assert_fires(SLUG, run(swinging(), epoch_steps=epoch_steps), severity="warning", since=(21, 21))
    assert alert.value < -0.5
    assert 30 < float(alert.title.split()[3]) < 55


def test_a_note_where_steps_are_small_or_unknown():
    for ratio in (1e-3, None):
        assert_fires(SLUG, run(swinging(), ratio), severity="info")
        assert_quiet(SLUG, run(swinging(), ratio), allow_info=True)
    assert_fires(SLUG, run(swinging(), 1e-3), severity="warning", limits={"update_ratio": 1e-4})


def test_only_noted_while_the_loss_falls():
    loss = swinging(level=np.linspace(3, 0.6, 24), swing=0.1)
    assert_fires(SLUG, run(loss), severity="info")
    assert_quiet(SLUG, run(loss), allow_info=True)
    assert_fires(SLUG, run(loss), severity="warning", limits={"falling": 0})


def test_only_noted_where_the_loss_is_not_made_to_fall():
    run_ = run(swinging(), declare={"adversarial": True})
    assert_quiet(SLUG, run_, allow_info=True)
    assert_fires(SLUG, run_, severity="warning", limits={"adversarial": 0})


def test_near_miss_swings_of_four_percent():
    assert_quiet(SLUG, run(swinging(swing=0.02, noise=0.01)))
    assert_fires(SLUG, run(swinging(swing=0.02, noise=0.01)), limits={"amplitude": 0.03})


def test_near_miss_no_more_than_the_noise_of_the_steps():
    loss = swinging(swing=0.1, noise=0.6)
    assert_quiet(SLUG, run(loss))
    assert_fires(SLUG, run(loss), limits={"excess": 0, "sigmas": 0})
    assert_quiet(SLUG, run(loss), limits={"sigmas": 0})


def test_near_miss_independent_swings():
    rng = np.random.default_rng(1)
    for seed in range(10):
        means = np.repeat(np.exp(0.2 * rng.standard_normal(60)), 20)
        assert_quiet(SLUG, run(means * (1 + 0.01 * np.random.default_rng(seed).standard_normal(1200))))


def test_sigmas_are_honoured():
    three = np.repeat([1.3, 0.8, 1.0, 1.25, 0.75, 1.3, 0.8, 1.2, 0.9, 0.95, 1.2, 0.85, 1.1], 20)
    assert_quiet(SLUG, run(three))
    assert_fires(SLUG, run(three), limits={"sigmas": 0})


def test_near_miss_two_unlike_halves_of_an_epoch():
    halves = run(swinging(48), epoch_steps=40)
    assert_quiet(SLUG, halves)
    assert_fires(SLUG, run(swinging(48)))


def test_near_miss_a_cyclic_learning_rate():
    lr = np.repeat(1e-3 * (2 + (-1.0) ** np.arange(24)), 20)
    assert_quiet(SLUG, run(swinging(), lr=lr))
    assert_fires(SLUG, run(swinging(), lr=lr), limits={"rises": 0})


def test_near_miss_close_to_zero_the_first_level_counts():
    loss = np.concatenate([np.full(100, 3.0), swinging(level=0.02)])
    assert_quiet(SLUG, run(loss))
    assert_fires(SLUG, run(loss), limits={"first_floor": 0, "most_points": 20})


def test_points_are_honoured():
    assert_quiet(SLUG, run(swinging()), ready=False, limits={"points": 30})
    assert_fires(SLUG, run(swinging()), limits={"points": 20}, by=21 * 20)


def test_trigger_limits_are_honoured():
    assert_quiet(SLUG, run(swinging()), limits={"correlation": -0.99})
    assert_fires(SLUG, run(swinging(swing=0.05, noise=0.01)))
    assert_quiet(SLUG, run(swinging(swing=0.05, noise=0.01)), limits={"amplitude": 0.15})
    assert_fires(SLUG, run(swinging()), by=12 * 20, limits={"sigmas": 0})
    assert_quiet(SLUG, run(swinging(10)), ready=False, limits={"sigmas": 0})


def test_only_the_last_points_count():
    late = run(np.concatenate([swinging(40, swing=0.0), swinging(20)]))
    assert_fires(SLUG, late, limits={"most_points": 20})
    assert_quiet(SLUG, late, limits={"most_points": 60})
