import math

import numpy as np

from tests.helpers_checks import records
from torchwatch.checks.loss import _curves
from torchwatch.history import History


def history_of(body):
    history = History()
    for record in body:
        history.add(record)
    return history


def test_curve_leaves_out_intervals_without_a_finite_mean():
    loss = [1.0] * 10 + [math.nan] * 10 + [0.5] * 10
    losses = _curves.curve(
        history_of(records(loss, interval_steps=10, intervals={"loss_mean": [1.0, None, 0.5]}))
    )
    assert losses.mean.tolist() == [1.0, 0.5]
    assert losses.last_step.tolist() == [10, 30]
    assert losses.error.tolist() == [0.0, 0.0]


def test_curve_keeps_the_first_interval_of_a_long_run():
    losses = _curves.curve(history_of(records(lambda n: 1 / n, steps=100, interval_steps=1)))
    assert losses.mean.size == 65
    assert losses.first_step[0] == 1
    assert losses.first_step[1] == 37


def test_first_level_before_and_after_the_first_interval():
    assert _curves.first_level(History()) is None
    assert _curves.first_level(history_of(records([4.0, 2.0, 3.0], interval_steps=10))) == 3.0
    assert _curves.first_level(history_of(records([4.0, 2.0, 3.0, 3.0], interval_steps=4))) == 3.0


def test_lr_rise_is_near_for_some_intervals_only():
    lr = [0.1] * 100 + [0.01] * 100 + [0.1] * 300
    history = history_of(records(1.0, lr=lr, steps=500))
    assert [_curves.lr_rose(history, step, 2) for step in (200, 201, 300, 302)] == [False, True, True, False]
    assert not _curves.lr_rose(history, 210, 0)


def test_falls_only_when_it_is_certain():
    noise = np.random.default_rng(0).standard_normal(200)
    flat = history_of(records(2 + 0.1 * noise))
    falling = history_of(records(2 - np.arange(200) / 200 + 0.1 * noise))
    assert not _curves.falls(flat, 1, 200)
    assert _curves.falls(falling, 1, 200)
    assert not _curves.falls(falling, 190, 200)


def test_a_first_interval_that_is_low_by_luck_does_not_hide_a_fall():
    rng = np.random.default_rng(0)
    means = np.array([0.87, 0.95, 0.93, 0.88, 0.86, 0.84, 0.84])
    loss = np.repeat(means, 50) * (1 + 0.3 * rng.standard_normal(350))
    losses = _curves.curve(history_of(records(loss)))
    assert _curves.most_fallen(losses, float(losses.mean[0])) > 0.05


def test_a_bad_start_is_no_fall():
    rng = np.random.default_rng(0)
    loss = np.repeat([5.0, *[2.3] * 9], 50) * (1 + 0.02 * rng.standard_normal(500))
    losses = _curves.curve(history_of(records(loss)))
    assert _curves.most_fallen(losses, 2.3) < 0.05
