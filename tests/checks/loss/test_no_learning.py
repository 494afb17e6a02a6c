import math

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from torchwatch.records import LayerInfo, Layout, OptimizerInfo, ParameterInfo

SLUG = "no-learning"
LN10 = math.log(10)


def head(classes):
    return LayerInfo("head", "Linear", 100, order=1, attributes={"out_features": classes})


def flat(level=LN10, n=400, share=0.03, seed=0):
    return level * (1 + share * np.random.default_rng(seed).standard_normal(n))


def run(loss, **options):
    options = {"interval_steps": 50, "layers": [head(10)]} | options
    return records(loss, **options)


def test_fires_at_the_level_of_guessing():
    alert = assert_fires(SLUG, run(flat()), severity="warning", since=(1, 1), by=350)
    assert "level of guessing" in alert.title
    assert "10 classes gives 2.303" in alert.detail


def test_fires_at_the_first_level_where_no_class_count_is_known():
    assert_fires(SLUG, run(flat(1.0), layers=[head(1)]), severity="warning")


def test_a_start_that_was_worse_than_guessing_is_no_learning():
    loss = flat()
    loss[:5] = [4.0, 3.4, 3.0, 2.6, 2.4]
    assert_fires(SLUG, run(loss), severity="warning")


def test_near_miss_a_slow_fall():
    assert_quiet(SLUG, run(flat() * (1 - 0.08 * np.arange(400) / 400)), ready=False)


def test_near_miss_learned_within_the_first_steps():
    loss = flat(1.0)
    loss[:6] = [2.0, 1.8, 1.6, 1.4, 1.2, 1.1]
    assert_quiet(SLUG, run(loss, layers=[head(1)]))


def test_near_miss_too_early():
    assert_quiet(SLUG, run(flat(n=150)), ready=False)
    assert_quiet(SLUG, run(flat(n=190), interval_steps=20), ready=False)


def test_too_noisy_to_tell():
    noisy = run(flat(share=0.6), interval_steps=50)
    assert_quiet(SLUG, noisy, ready=False)
    assert_fires(SLUG, noisy, limits={"precision": 0})


def test_warm_up_is_not_counted():
    lr = np.minimum(1, np.arange(1, 401) / 350) * 0.01
    assert_quiet(SLUG, run(flat(), lr=lr), ready=False)
    assert_fires(SLUG, run(flat(), lr=lr), limits={"warm_up": 0})


def test_a_diverging_loss_is_not_its_matter():
    rising = flat() * np.linspace(1, 3, 400)
    assert_quiet(SLUG, run(rising))
    assert_fires(SLUG, run(rising), limits={"risen": 0})


frozen = layout([head(10)], [ParameterInfo("head.weight", 0, [10, 10], "float32", trainable=False)])
two = Layout(1, [head(10)], [], [OptimizerInfo("Adam"), OptimizerInfo("Adam")])


@pytest.mark.parametrize(
    "options",
    [
        {"declare": {"fine_tuning": True}},
        {"declare": {"adversarial": True}},
        {"declare": {"reinforcement": True}},
        {"layers": frozen},
        {"layers": two},
        {"intervals": {"first_step": lambda n: 951 + 50 * n, "last_step": lambda n: 1000 + 50 * n}},
    ],
)
def test_excuses_make_it_a_note(options):
    assert_quiet(SLUG, run(flat(), **options), allow_info=True)
    assert_fires(SLUG, run(flat(), **options), severity="info")
    assert_fires(SLUG, run(flat(), **options), severity="warning", limits={"excuses": 0})


def test_negative_losses_are_excused():
    assert_quiet(SLUG, run(flat(-1.0)), allow_info=True)


def test_a_start_far_below_guessing_is_excused():
    assert_quiet(SLUG, run(flat(0.4)), allow_info=True)
    assert_fires(SLUG, run(flat(0.4)), severity="warning", limits={"chance_share": 0})


def test_luck_guard_off():
    loss = flat(n=1000, share=0.1)
    assert_fires(SLUG, run(loss))
    assert_quiet(SLUG, run(loss), limits={"sigmas": 0})


def test_limits_are_honoured():
    falling = run(flat() * (1 - 0.08 * np.arange(400) / 400))
    assert_fires(SLUG, falling, limits={"fall": 0.2, "precision": 0})
    assert_quiet(SLUG, run(flat()), limits={"steps": 1000}, ready=False)
    assert_quiet(SLUG, run(flat()), limits={"intervals": 20}, ready=False)


def test_near_miss_a_fast_learner_hidden_in_the_first_interval():
    loss = flat(1.0, n=1600, share=0.15)
    loss[:4] = [2.5, 1.6, 1.2, 1.1]
    assert_quiet(SLUG, run(loss, layers=[head(1)], interval_steps=200))
    loss[:4] = 1.0
    assert_fires(SLUG, run(loss, layers=[head(1)], interval_steps=200))


def test_five_level_epochs_are_enough():
    """Random labels: every epoch's mean lies within its noise of the first; no slope has an interval yet."""
    rng = np.random.default_rng(3)
    run = records(2.306 + 0.06 * rng.standard_normal(6 * 57), epoch_steps=57, interval_steps=200, lr=1e-3)
    assert_fires(SLUG, run, by=342)
