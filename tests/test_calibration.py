"""Self-timing against the clock on the wall, on made-up trainings whose hidden cost is known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.calibration import PRIOR, Calibration, Factor


def calibrated(
    hidden: float,
    *,
    steps: int = 4000,
    every: int = 20,
    bare_s: float = 0.05,
    own_s: float = 0.005,
    noise: float = 0.01,
    drift: float = 0.0,
    hiccups: float = 0.0,
    seed: int = 0,
) -> Factor:
    """The factor after a training that drifts (relative, over 1,000 steps) and has steps 20 times as long."""
    chance = random.Random(seed)
    calibration = Calibration()
    for number in range(1, steps + 1):
        bare = bare_s * (1 + chance.gauss(0, noise) + drift * math.sin(number / 160))
        bare *= 20 if chance.random() < hiccups else 1
        if number % every == 0:
            calibration.sampled(bare + own_s * hidden, own_s)
        else:
            calibration.usual((bare,), 0.0)
    return calibration.estimate()


@pytest.mark.parametrize("hidden", [1.0, 1.7, 3.0])
def test_the_hidden_cost_is_found(hidden: float) -> None:
    assert calibrated(hidden).value == pytest.approx(hidden, abs=0.1)


@pytest.mark.parametrize("hidden", [1.0, 1.7, 3.0])
def test_a_machine_that_drifts_by_more_than_watching_costs_changes_little(hidden: float) -> None:
    assert calibrated(hidden, drift=0.2).value == pytest.approx(hidden, abs=0.15)


def test_hiccups_of_the_machine_change_little() -> None:
    assert calibrated(2.0, hiccups=0.03).value == pytest.approx(2.0, abs=0.15)


def test_noise_is_no_evidence() -> None:
    factor = calibrated(3.0, own_s=1e-5, noise=0.3)
    assert factor.value == pytest.approx(PRIOR.value, abs=0.2)
    assert factor.error == pytest.approx(PRIOR.error, rel=0.1)


def test_without_steps_to_compare_with_the_prior_stays() -> None:
    calibration = Calibration()
    for _ in range(100):
        calibration.sampled(0.1, 0.05)
    assert calibration.estimate() == PRIOR


def test_of_sampled_steps_in_a_row_only_the_first_is_compared() -> None:
    calibration = Calibration()
    for _ in range(10):
        calibration.usual([0.05] * 8, 0.0)
        calibration.sampled(0.05 + 2 * 0.01, 0.01)
        for _ in range(49):  # a zoom: slower and slower, as if the machine drifted
            calibration.sampled(0.5, 0.01)
    calibration.usual([0.05] * 8, 0.0)
    assert calibration.estimate().value == pytest.approx(2.0, abs=0.02)


def test_blocks_of_steps_are_as_good_as_single_ones() -> None:
    alone, together = Calibration(), Calibration()
    chance = random.Random(1)
    for _ in range(30):
        durations = [0.05 + chance.gauss(0, 1e-3) for _ in range(19)]
        for duration in durations:
            alone.usual((duration,), 1e-6)
        together.usual(durations, 1e-6)
        for one in (alone, together):
            one.sampled(0.065, 0.01)
    assert alone.estimate() == together.estimate()


def test_its_standard_error_is_one() -> None:
    """Where noise is a third of what a sampled step costs, two of them hold the truth as they should."""
    found = [calibrated(1.8, steps=800, noise=0.03, drift=0.1, seed=seed) for seed in range(100)]
    within = sum(abs(factor.value - 1.8) <= 2 * factor.error for factor in found)
    assert within >= 88
    assert all(factor.error < PRIOR.error for factor in found)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 10.0), st.floats(0.0, 0.5), st.floats(1e-6, 1.0))
def test_never_less_than_the_clocks_say(hidden: float, noise: float, own_s: float) -> None:
    factor = calibrated(hidden, steps=200, noise=noise, own_s=own_s)
    assert 1.0 <= factor.value <= 4.0
    assert 0.0 < factor.error <= PRIOR.error
