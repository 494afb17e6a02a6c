"""Intervals and epochs sum up their steps, and say None where a step was not measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.records import Step


def step(number: int, **fields) -> Step:
    given_fields = {
        "loss": float(number),
        "step_time_s": 0.5,
        "wait_time_s": 0.1,
        "samples": 4,
        "lr": [0.1, 0.3],
    }
    return Step(step=number, epoch=0, time_s=number * 0.5, watch_time_s=0.01, **{**given_fields, **fields})


def built(*steps: Step, **measured):
    builder = IntervalBuilder(200)
    for one in steps:
        builder.add(one)
    return builder, builder.close("steps", steps[-1].time_s, **measured)


def test_an_interval_sums_up_its_steps() -> None:
    _, interval = built(*(step(i) for i in range(1, 5)), recorder_s=0.06, rss_bytes=5, dropped=2)
    assert (interval.first_step, interval.last_step, interval.steps, interval.index) == (1, 4, 4, 0)
    assert interval.loss_mean == 2.5
    assert interval.loss_std == pytest.approx(np.std([1, 2, 3, 4]))
    assert (interval.loss_min, interval.loss_max, interval.lr_max) == (1, 4, 0.3)
    assert (interval.busy_s, interval.samples, interval.steps_per_s, interval.samples_per_s) == (
        2.0,
        16,
        2.0,
        8.0,
    )
    assert interval.wait_share == pytest.approx(0.2)
    assert interval.watch_share == pytest.approx((0.04 + 0.06) / 2.0)
    assert (interval.rss_bytes, interval.dropped, interval.duration_s) == (5, 2, 2.0)


def test_what_one_step_did_not_measure_the_sum_does_not_claim() -> None:
    _, interval = built(step(1), step(2, samples=None, wait_time_s=None, loss=None))
    assert interval.samples is None
    assert interval.samples_per_s is None
    assert interval.wait_share is None
    assert interval.loss_mean == 1.0  # of the losses that were seen


def test_a_non_finite_loss_shows() -> None:
    _, interval = built(step(1), step(2, loss=math.nan))
    assert math.isnan(interval.loss_mean)


def test_an_epoch_is_all_of_its_intervals() -> None:
    builder, first = built(*(step(i) for i in range(1, 4)))
    builder.add(step(4))
    second = builder.close("epoch", 2.0)
    epoch = builder.close_epoch(0, 4, 2.0, {"val_loss": 1.0})
    assert (first.index, second.index) == (0, 1)
    assert (epoch.steps, epoch.loss_mean, epoch.samples, epoch.duration_s) == (4, 2.5, 16, 2.0)
    assert epoch.wait_share == pytest.approx(0.2)
    assert builder.close_epoch(1, 4, 3.0, {}).steps == 0


@given(st.floats(width=32, allow_nan=False))
def test_tidy_numbers_restore_a_float32(value: float) -> None:
    assert np.float32(tidy(value)) == np.float32(value)
    assert tidy(tidy(value)) == tidy(value)
