"""Dead and dormant units against a plain list of what every step saw, and planted ones by count."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from torchwatch.probes._units import DORMANT, SILENT, Call, Key, UnitWindows

Told = tuple[int, int, list[float], list[float]]
"""One call: its layer, its samples, peaks and activity per unit."""

NAN = math.nan
PEAKS = [0.0, 1e-7, SILENT, 2 * SILENT, 1.0, NAN]
ACTIVITY = [0.0, 1e-3, 0.02, 1.0, 3.0, 50.0]


def told(windows: UnitWindows, *calls: Told) -> dict[Key, tuple[float, float]]:
    """(dead, dormant) of every key that the step was told of and whose window is full."""
    shares = windows.update([Call(n, s, torch.tensor(p), torch.tensor(a)) for n, s, p, a in calls])
    found: dict[Key, tuple[float, float]] = {}
    for keys, values in shares:
        assert values.shape == (2, len(keys))
        assert not found.keys() & set(keys)
        found |= {key: (float(d), float(o)) for key, d, o in zip(keys, *values, strict=True)}
    return found


class Plain:
    """Everything that was seen of one key, step by step, and the definitions applied to it in float64."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.steps: list[tuple[int, np.ndarray, np.ndarray]] = []

    def see(self, calls: list[Told]) -> None:
        samples = sum(s for _, s, _, _ in calls)
        peaks = np.stack([p for _, _, p, _ in calls]).max(0)  # NaN where one is
        activity = sum(s * np.array(a) for _, s, _, a in calls) / samples
        self.steps.append((samples, peaks, activity))

    def full(self) -> bool:
        return sum(s for s, _, _ in self.steps) >= self.window

    def dead(self) -> float:
        silent = np.zeros(len(self.steps[0][1]))
        for samples, peaks, _ in self.steps:
            silent = np.where(peaks <= SILENT, silent + samples, 0)
        return float(np.mean(silent >= self.window))

    def dormant(self, share: float) -> float:
        """Over the last stretch of the window's length that was completed, and over what came after."""
        older = newer = np.zeros(len(self.steps[0][1]))
        seen = 0
        for samples, _, activity in self.steps:
            seen, newer = seen + samples, newer + samples * activity
            if seen >= self.window:
                seen, older, newer = 0, newer, np.zeros_like(newer)
        total = older + newer
        return float(np.mean(total <= share * total.mean()))


@settings(max_examples=100)
@given(
    places=st.sampled_from([[(0, 3)], [(0, 2), (1, 5)], [(0, 1), (0, 4), (1, 3), (2, 6)]]),
    steps=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 7)), max_size=5), max_size=20),
    window=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_any_calls_of_any_layers_against_a_plain_list(places, steps, window, seed) -> None:
    """``places``: layers and their units; ``steps``: which of them was called, with how many samples."""
    rng = np.random.default_rng(seed)
    windows, plain = UnitWindows(window), {key: Plain(window) for key in places}
    for step in steps:
        of_key: dict[Key, list[Told]] = {}
        for place, samples in step:
            layer, units = key = places[place % len(places)]
            peaks, activity = (rng.choice(pool, units).tolist() for pool in (PEAKS, ACTIVITY))
            of_key.setdefault(key, []).append((layer, samples, peaks, activity))
        for key, own in of_key.items():
            plain[key].see(own)
        found = told(windows, *(call for own in of_key.values() for call in own))
        assert set(found) == {key for key in of_key if plain[key].full()}
        for key, (dead, dormant) in found.items():
            assert dead == pytest.approx(plain[key].dead())
            low, high = (plain[key].dormant(DORMANT * f) for f in (1 - 1e-4, 1 + 1e-4))  # rounding
            assert low - 1e-6 <= dormant <= high + 1e-6


@settings(max_examples=40)
@given(
    units=st.integers(1, 40),
    planted=st.integers(0, 40),
    samples=st.integers(1, 16),
    seed=st.integers(0, 1000),
)
def test_planted_dead_units_are_counted_however_the_samples_come(units, planted, samples, seed) -> None:
    """A unit that is active once in a while, at random, is never dead; a planted one always is."""
    rng = np.random.default_rng(seed)
    windows, planted = UnitWindows(32), min(planted, units)
    for step in range(2 * math.ceil(32 / samples) + 1):
        peaks = rng.uniform(0.1, 2, units)
        peaks[rng.permutation(units)[: units // 2]] = 0.0
        if step % 2 == 0:
            peaks[:] = 1.0  # everybody within two steps
        peaks[:planted] = rng.uniform(0, SILENT / 2, planted)
        found = told(windows, (0, min(samples, 15), peaks.tolist(), peaks.tolist()))
    assert found[0, units][0] == pytest.approx(planted / units)


def test_silence_of_a_whole_window_is_death_and_not_of_a_sample_less() -> None:
    windows = UnitWindows(10)
    assert told(windows, (0, 4, [0.0, 1.0], [0.0, 1.0])) == {}
    assert told(windows, (0, 5, [0.0, 1.0], [0.0, 1.0])) == {}, "9 of 10 samples: not enough to say"
    assert told(windows, (0, 1, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 0.5
    assert told(windows, (0, 9, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 1.0
    assert told(windows, (0, 1, [1e-5, 0.0], [0.0, 0.0]))[0, 2][0] == 0.5, "awake again at once"
    assert told(windows, (0, 9, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 0.5, "silent for 9 since"
    assert told(windows, (0, 1, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 1.0


@pytest.mark.parametrize(("peak", "dead"), [(SILENT, 1.0), (SILENT * 1.01, 0.0), (math.inf, 0.0), (NAN, 0.0)])
def test_what_silence_is(peak: float, dead: float) -> None:
    assert told(UnitWindows(4), (0, 4, [peak], [0.0]))[0, 1][0] == dead


def test_a_nan_peak_breaks_silence_once_and_is_forgotten() -> None:
    windows = UnitWindows(4)
    assert told(windows, (0, 4, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 1.0
    assert told(windows, (0, 4, [NAN, 0.0], [0.0, 0.0]))[0, 2][0] == 0.5
    assert told(windows, (0, 3, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 0.5
    assert told(windows, (0, 1, [0.0, 0.0], [0.0, 0.0]))[0, 2][0] == 1.0


def test_a_nan_peak_of_one_call_outweighs_silence_in_another_of_the_same_step() -> None:
    windows = UnitWindows(4)
    assert told(windows, (0, 4, [NAN], [0.0]), (0, 4, [0.0], [0.0]))[0, 1][0] == 0.0
    assert told(windows, (0, 4, [0.0], [0.0]), (0, 4, [NAN], [0.0]))[0, 1][0] == 0.0


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_activity_that_is_no_number_makes_no_claim_and_passes_with_its_window(bad: float) -> None:
    windows = UnitWindows(2)
    assert math.isnan(told(windows, (0, 2, [1.0] * 3, [1.0, 1e-4, bad]))[0, 3][1])
    later = [told(windows, (0, 1, [1.0] * 3, [1.0, 1e-4, 1.0]))[0, 3][1] for _ in range(4)]
    assert later[-1] == pytest.approx(1 / 3)
    assert math.isnan(later[0])


def test_a_layer_that_is_no_number_leaves_the_others_alone() -> None:
    found = told(UnitWindows(1), (0, 1, [NAN] * 2, [NAN] * 2), (1, 1, [0.0, 1.0], [0.0, 1.0]))
    assert found[1, 2] == (0.5, 0.5)
    assert found[0, 2][0] == 0.0
    assert math.isnan(found[0, 2][1])


def test_planted_dormant_units_by_the_mean_of_their_own_layer() -> None:
    """The share of the layer's mean counts, not the level: a small layer is as a large one."""
    large = [0.0] * 3 + [400.0] * 9 + [2.0, 12.0, 3000.0]
    least = DORMANT * sum(large) / len(large)
    assert 2.0 < least < 12.0
    found = told(UnitWindows(8), (0, 8, [1.0] * 10, [1e-6] * 9 + [1e-8]), (1, 8, [1.0] * 15, large))
    assert found == {(0, 10): (0.0, pytest.approx(1 / 10)), (1, 15): (0.0, pytest.approx(4 / 15))}


def test_a_unit_is_dormant_between_one_and_two_windows_after_it_fell_asleep() -> None:
    windows = UnitWindows(10)
    for _ in range(10):
        found = told(windows, (0, 1, [1.0, 1.0], [1.0, 1.0]))
    assert found[0, 2][1] == 0.0
    asleep = [told(windows, (0, 1, [0.0, 1.0], [0.0, 1.0]))[0, 2][1] for _ in range(20)]
    first = asleep.index(0.5)
    assert 9 <= first <= 19
    assert asleep[first:] == [0.5] * (20 - first)


def test_samples_weigh_in_the_mean_of_a_window() -> None:
    """1 sample at 1 and 99 at 0 are a hundredth of what the other unit does; 2 more at 2 are a twentieth."""
    windows = UnitWindows(100)
    told(windows, (0, 1, [1.0, 1.0], [1.0, 1.0]))
    assert told(windows, (0, 99, [0.0, 1.0], [0.0, 1.0]))[0, 2][1] == 0.5
    windows = UnitWindows(100)
    told(windows, (0, 99, [0.0, 1.0], [0.0, 1.0]))
    told(windows, (0, 2, [2.0, 1.0], [2.0, 1.0]))
    assert told(windows, (0, 1, [1.0, 1.0], [1.0, 1.0]))[0, 2][1] == 0.0


def test_a_layer_that_is_silent_altogether_is_all_dead_and_all_dormant() -> None:
    assert told(UnitWindows(5), (0, 5, [0.0] * 4, [0.0] * 4)) == {(0, 4): (1.0, 1.0)}


def test_calls_of_one_step_are_pooled_as_if_they_were_one() -> None:
    apart, together = UnitWindows(12), UnitWindows(12)
    for _ in range(3):
        one, other = (2, [0.0, 3.0, 0.0], [0.0, 2.0, 1e-3]), (6, [0.0, 0.0, 2.0], [0.0, 0.0, 2e-3])
        found = told(apart, (0, *one), (0, *other))
        mean = [(2 * a + 6 * b) / 8 for a, b in zip(one[2], other[2], strict=True)]
        assert found == told(together, (0, 8, [0.0, 3.0, 2.0], mean))
    assert found == {(0, 3): pytest.approx((1 / 3, 2 / 3))}


def test_layers_that_rest_keep_what_they_had() -> None:
    windows = UnitWindows(6)
    sleeper: Callable[[int], Told] = lambda samples: (0, samples, [0.0, 1.0], [0.0, 1.0])  # noqa: E731
    told(windows, sleeper(3), (1, 3, [1.0], [1.0]))
    for _ in range(5):
        assert (0, 2) not in told(windows, (1, 3, [1.0], [1.0]))
    assert told(windows, sleeper(2), (1, 3, [1.0], [1.0])) == {(1, 1): (0.0, 0.0)}
    assert told(windows) == {}
    assert told(windows, sleeper(1)) == {(0, 2): (0.5, 0.5)}


def test_a_module_with_several_widths_has_several_windows_and_not_without_end() -> None:
    windows = UnitWindows(2)
    for width in range(1, 9):
        told(windows, (0, 2, [1.0] * width, [1.0] * width), (1, 2, [0.0], [0.0]))
    every = [(0, 2, [0.0] * width, [0.0] * width) for width in range(1, 9)]
    found = told(windows, *every, (1, 2, [0.0], [0.0]))
    assert sorted(found) == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1)]
    assert all(shares == (1.0, 1.0) for shares in found.values())


def test_what_it_was_told_is_not_changed() -> None:
    peaks, activity = torch.tensor([0.0, 2.0]), torch.tensor([0.0, 3.0])
    windows = UnitWindows(1)
    for _ in range(3):
        shares = windows.update([Call(0, 1, peaks, activity)])
    assert (peaks.tolist(), activity.tolist()) == ([0.0, 2.0], [0.0, 3.0])
    before = shares[0].values.clone()
    windows.update([Call(0, 1, activity, activity + 9)])
    assert torch.equal(shares[0].values, before), "what was handed out is nobody else's"


def test_stretches_of_layers_that_do_not_end_together() -> None:
    """6 samples: three steps of one layer, two of the other; what was before the last stretch is over."""
    windows = UnitWindows(6)
    early = (0, 2, [9.0, 1.0], [9.0, 1.0]), (1, 3, [9.0, 1.0], [9.0, 1.0])
    late = (0, 2, [0.0, 1.0], [0.0, 1.0]), (1, 3, [0.0, 1.0], [0.0, 1.0])
    shares = [told(windows, *calls) for calls in (early, late, late, late, late, late)]
    assert [(0, 2) in found for found in shares] == [False, False, True, True, True, True]
    assert [found.get((0, 2), (0, 0))[1] for found in shares] == [0, 0, 0, 0, 0, 0.5]
    assert [found.get((1, 2), (0, 0))[1] for found in shares] == [0, 0, 0, 0.5, 0.5, 0.5]
