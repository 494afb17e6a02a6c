"""Where two curves part: planted differences, and none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.comparison import Parting, parting
from torchwatch.run import Series

STEPS = np.arange(1, 1001)


def series(values: np.ndarray, steps: np.ndarray = STEPS) -> Series:
    return Series(steps, values)


def decay(seed: int, noise: float = 0.05) -> np.ndarray:
    """A loss that falls from 2.3 to 0.3 under noise."""
    return (0.3 + 2 * np.exp(-STEPS / 200)) * (1 + noise * np.random.default_rng(seed).standard_normal(1000))


def test_the_same_curve_never_parts() -> None:
    found = parting(series(decay(0)), series(decay(0)))
    assert (found.common, found.identical_until, found.parts_at, found.gap) == (1000, 1000, None, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_other_seeds_of_the_same_curve_do_not_part(seed: int) -> None:
    found = parting(series(decay(seed)), series(decay(seed + 100)))
    assert found.identical_until is None
    assert found.parts_at is None


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_difference_is_found_where_it_begins(seed: int) -> None:
    one, other = decay(seed), decay(seed)
    other[400:] += 0.3
    found = parting(series(one), series(other))
    assert found.identical_until == 400
    assert found.parts_at is not None
    assert 400 < found.parts_at <= 400 + 2 * found.window
    assert found.gap == pytest.approx(0.3, abs=0.05)


def test_a_difference_that_passes_is_none() -> None:
    other = decay(1)
    other[300:500] += 0.5
    assert parting(series(decay(0)), series(other)).parts_at is None


def test_only_common_steps_count_and_few_are_not_judged() -> None:
    steps = np.arange(991, 1991)
    found = parting(series(decay(0)), series(decay(1) + 5, steps))
    assert found == Parting(common=10)
    assert parting(series(decay(0)), series(np.empty(0), np.empty(0, np.int64))) == Parting(common=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=0, max_size=80))
def test_any_numbers_can_be_compared_with_themselves(values: list[float]) -> None:
    mine = series(np.array(values, np.float64), np.arange(len(values)))
    found = parting(mine, mine)
    assert found.parts_at is None
    assert found.identical_until == (len(values) - 1 if values else None)
