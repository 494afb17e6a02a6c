import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.errors import ConfigError
from torchwatch.examinations._bands import Band, bands_for, gain, power_in, without

RATE = 200.0
ALPHA = Band("alpha", 8, 13)


def tone(frequency, seconds=4.0, phase=0.3):
    t = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return torch.cos(2 * math.pi * frequency * t + phase)


def test_a_tone_inside_goes_and_one_outside_stays():
    inside = without(tone(10.5), ALPHA, RATE, 0)
    outside = without(tone(25), ALPHA, RATE, 0)
    middle = slice(100, 700)  # a cut-off tone is spread a little at its ends
    assert inside[middle].abs().max() < 0.05
    assert outside[middle] == pytest.approx(tone(25)[middle], abs=0.01), "same amplitude, same phase"


def test_the_mean_and_the_shape_stay():
    values = torch.randn(3, 4, 201) + 5
    filtered = without(values, Band("delta", 0, 4), RATE, 2)
    assert filtered.shape == values.shape
    assert filtered.dtype == values.dtype
    assert filtered.mean() == pytest.approx(5, abs=0.1)
    turned = without(values.movedim(2, 1), Band("delta", 0, 4), RATE, 1)
    assert torch.allclose(turned.movedim(1, 2), filtered, atol=1e-5)


@settings(max_examples=50)
@given(st.integers(8, 300), st.floats(0, 80), st.floats(1, 80))
def test_gains_are_between_0_and_1_and_keep_the_mean(length, low, width):
    frequencies = torch.fft.rfftfreq(length, 1 / RATE)
    gains = gain(frequencies, Band("b", low, low + width))
    assert gains[0] == 1
    assert ((gains >= 0) & (gains <= 1)).all()


def test_edges_are_tapered():
    frequencies = torch.linspace(0, 100, 10_001)
    gains = gain(frequencies, Band("b", 20, 40))
    assert gains.diff().abs().max() < 0.01, "no jump"
    assert gains[(frequencies > 23) & (frequencies < 37)].max() == 0
    assert gains[(frequencies < 17) | (frequencies > 43)].min() == 1
    to_the_end = gain(frequencies, Band("b", 80, 100))
    assert to_the_end[-1] == 0, "no other side at the Nyquist frequency"


def test_power_of_all_bands_is_the_whole():
    signal = torch.randn(5, 2, 400)
    bands = [Band("a", 0, 10), Band("b", 10, 60), Band("c", 60, 100)]
    parts = [power_in(signal, band, RATE, 2) for band in bands]
    assert sum(p for p, _ in parts) == pytest.approx(parts[0][1])
    power, total = power_in(tone(10), ALPHA, RATE, 0)
    assert power / total > 0.99


def test_default_bands_are_those_of_the_eeg_below_nyquist():
    assert [b.name for b in bands_for(250, 2)] == ["delta", "theta", "alpha", "beta", "gamma"]
    at_64 = bands_for(64, 2)
    assert str(at_64[-1]) == "gamma (30–32 Hz)"
    assert [b.name for b in bands_for(50, 2)] == ["delta", "theta", "alpha", "beta"]


def test_octaves_far_from_the_eeg():
    bands = bands_for(16_000, 1.0)
    assert bands[-1].high == 8000
    assert bands[-1].low == 4000
    assert len(bands) == 8
    slow = bands_for(1 / 3600, 240 * 3600)  # hourly, ten days
    assert slow[-1].high == pytest.approx(1 / 7200)
    assert all(a.high == b.low for a, b in itertools.pairwise(slow))
    assert np.all([b.high > b.low > 0 for b in slow])


def test_the_users_bands_are_checked():
    (band,) = bands_for(100, 1, {"low": (1, 400)})
    assert (band.low, band.high) == (1, 50)
    with pytest.raises(ConfigError, match="low < high"):
        bands_for(100, 1, {"wrong": (5, 5)})
    with pytest.raises(ConfigError, match="low < high"):
        bands_for(100, 1, {"wrong": (5, 6, 7)})
