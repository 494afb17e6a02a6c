"""Intervals and epochs sum up their steps, and say None where a step was not measured."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_records import lines, same
from torchwatch.intervals import IntervalBuilder, tidy
from torchwatch.records import Step, Steps, batch, expand


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
    _, interval = built(*(step(i) for i in range(1, 5)), rss_bytes=5, dropped=2)
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


@settings(max_examples=50, deadline=None)
@given(lines(), st.integers(1, 3))
def test_a_line_adds_up_as_its_steps_do(steps: list[Step], split: int) -> None:
    line = batch(steps)
    alone, together, mixed = IntervalBuilder(), IntervalBuilder(), IntervalBuilder()
    for one in expand(line):
        alone.add(one)
    together.add_all(line)
    expanded = list(expand(line))
    for one in expanded[:split]:
        mixed.add(one)
    for one in expanded[split:]:
        mixed.add_all(batch([one]))
    assert alone.room == together.room == mixed.room
    expected = alone.close("steps", 9.0)
    assert same(together.close("steps", 9.0), expected)
    assert same(mixed.close("steps", 9.0), expected)
    assert same(together.close_epoch(0, 1, 9.0, {}), alone.close_epoch(0, 1, 9.0, {}))


def test_a_line_without_steps_changes_nothing() -> None:
    builder = IntervalBuilder()
    builder.add_all(Steps())
    assert builder.empty
    assert builder.room == 200


def test_shares_of_a_step_are_over_the_steps_that_measured_them() -> None:
    _, interval = built(step(1, forward_s=0.1, backward_s=0.2, tokens=100), step(2), step(3, forward_s=0.2))
    own = 0.5 - 0.01
    assert interval.forward_share == pytest.approx(0.3 / (2 * own))
    assert interval.backward_share == pytest.approx(0.2 / own)
    assert interval.tokens_per_s == pytest.approx(100 / own)
    assert interval.optimizer_share is None


def test_what_is_measured_otherwise_goes_first() -> None:
    _, interval = built(step(1, tokens=100), tokens_per_s=7.0)
    assert interval.tokens_per_s == 7.0


def test_a_run_without_epochs_keeps_no_intervals() -> None:
    builder = IntervalBuilder(1)
    tracemalloc.start()
    for i in range(1, 2001):
        builder.add(step(i))
        builder.close("steps", i * 0.5)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 20_000


@given(st.lists(st.floats(-1e9, 1e9) | st.just(math.nan), min_size=1, max_size=9))
def test_medians_are_numpys(norms: list[float]) -> None:
    _, interval = built(*(step(i, grad_norm=n) for i, n in enumerate(norms)))
    assert same(interval.grad_norm_median, tidy(float(np.median(norms))))


def test_arithmetic_per_second_and_its_share_of_the_peak() -> None:
    _, interval = built(*(step(i) for i in range(1, 5)), flops_per_step=3e9, peak_flops_per_s=24e9)
    assert interval.flops_per_s == 6e9  # four steps in two seconds
    assert interval.mfu == 0.25
    _, unknown = built(step(1), flops_per_step=3e9)
    assert (unknown.flops_per_s, unknown.mfu) == (6e9, None)
    _, uncounted = built(step(1), peak_flops_per_s=24e9)
    assert (uncounted.flops_per_s, uncounted.mfu) == (None, None)


def test_energy_per_step_and_per_sample() -> None:
    _, interval = built(step(1), step(2), energy_j=16.0, energy_source="estimated")
    assert (interval.energy_j, interval.joules_per_step, interval.joules_per_sample) == (16.0, 8.0, 2.0)
    _, unsized = built(step(1, samples=None), energy_j=16.0)
    assert (unsized.joules_per_step, unsized.joules_per_sample) == (16.0, None)
    assert built(step(1))[1].joules_per_step is None
