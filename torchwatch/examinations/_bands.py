"""Frequency bands: which there are at a sample rate, and a filter that takes one out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwatch.errors import ConfigError

EEG = (
    ("delta", 0.5, 4.0),
    ("theta", 4.0, 8.0),
    ("alpha", 8.0, 13.0),
    ("beta", 13.0, 30.0),
    ("gamma", 30.0, 45.0),
)
_EEG_RATES = (40.0, 2500.0)
"""Sample rates (Hz) at which the bands of the EEG are the default."""
_OCTAVES = 8
_EDGE = 0.1
"""Half width of a filter's edge as a share of the band's width."""


@dataclass(frozen=True)
class Band:
    """A frequency band, ``low`` to ``high`` in Hz."""

    name: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.name} ({self.low:g}–{self.high:g} Hz)"


def bands_for(
    sample_rate: float, duration_s: float, given: Mapping[str, Sequence[float]] | None = None
) -> tuple[Band, ...]:
    """The bands to test: the user's, those of the EEG, or octaves below the Nyquist frequency.

    Bands end at the Nyquist frequency; those that begin above it are left out.

    Args:
        sample_rate: Hz.
        duration_s: of a sample.
        given: the user's, from name to (low, high) in Hz.

    Raises:
        ConfigError: a band whose ends are not two rising, non-negative numbers.
    """
    nyquist = sample_rate / 2
    if given:
        found = [_checked(name, ends) for name, ends in given.items()]
    elif _EEG_RATES[0] <= sample_rate <= _EEG_RATES[1]:
        found = [Band(*b) for b in EEG]
    else:
        found = _octaves(nyquist, 1 / duration_s)
    return tuple(Band(b.name, b.low, min(b.high, nyquist)) for b in found if b.low < nyquist)


def _checked(name: str, ends: Sequence[float]) -> Band:
    numbers = [float(e) for e in ends]
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise ConfigError(f"bands: {name!r} must be (low, high) in Hz with 0 ≤ low < high, not {tuple(ends)}")
    return Band(str(name), *numbers)


def _octaves(nyquist: float, resolution: float) -> list[Band]:
    """Octaves from the Nyquist frequency down to the lowest that a sample can hold."""
    ends = list(
        itertools.takewhile(lambda f: f >= 2 * resolution, (nyquist / 2**i for i in range(_OCTAVES + 1)))
    )
    return [Band(f"{low:.4g}–{high:.4g} Hz", low, high) for high, low in itertools.pairwise(ends)][::-1]


def gain(frequencies: Tensor, band: Band) -> Tensor:
    """Gain of the band-stop at each frequency: 0 inside, 1 outside, a raised cosine across each edge.

    An edge at 0 Hz or at the highest frequency has no other side and is not tapered; the mean (0 Hz) always
    stays.

    Args:
        frequencies: rising, from 0 (f,), in Hz.
        band: what to take out.
    """
    step = float(frequencies[1]) if len(frequencies) > 1 else 1.0
    half = max(_EDGE * (band.high - band.low), step)
    rising = _ramp(frequencies, band.low, half) if band.low > 0 else torch.ones_like(frequencies)
    last = float(frequencies[-1])
    falling = _ramp(frequencies, band.high, half) if band.high < last else torch.zeros_like(frequencies)
    stopped = 1 - (rising - falling).clamp(0, 1)
    stopped[0] = 1.0
    return stopped


def _ramp(frequencies: Tensor, edge: float, half: float) -> Tensor:
    """From 0 below the edge to 1 above it."""
    along = ((frequencies - (edge - half)) / (2 * half)).clamp(0, 1)
    return (1 - torch.cos(torch.pi * along)) / 2


def without(values: Tensor, band: Band, sample_rate: float, axis: int) -> Tensor:
    """The signal without a band: real gains on its spectrum, so that all phases stay.

    Half a signal's length is mirrored at either end before, so that its ends do not meet in a jump.

    Args:
        values: (…, T, …), finite.
        band: what to take out.
        sample_rate: Hz.
        axis: of time.
    """
    moved = values.movedim(axis, -1)
    length = moved.shape[-1]
    reach = length // 2
    mirrored = torch.cat(
        [moved[..., 1 : reach + 1].flip(-1), moved, moved[..., -reach - 1 : -1].flip(-1)], -1
    )
    spectrum = torch.fft.rfft(mirrored.to(_precise(values)))
    frequencies = torch.fft.rfftfreq(mirrored.shape[-1], 1 / sample_rate, device=values.device)
    kept = torch.fft.irfft(spectrum * gain(frequencies, band), n=mirrored.shape[-1])
    filtered: Tensor = kept[..., reach : reach + length].movedim(-1, axis).to(values.dtype)
    return filtered


def power_in(values: Tensor, band: Band, sample_rate: float, axis: int) -> tuple[float, float]:
    """Power of a signal in a band, and in all bands but 0 Hz.

    Args:
        values: (…, T, …).
        band: the band; its lower end belongs to it, its upper end to the next.
        sample_rate: Hz.
        axis: of time.
    """
    moved = values.movedim(axis, -1).to(_precise(values))
    power = torch.fft.rfft(moved).abs().square().reshape(-1, moved.shape[-1] // 2 + 1).double().sum(0)
    frequencies = torch.fft.rfftfreq(moved.shape[-1], 1 / sample_rate, device=values.device)
    last = (frequencies == frequencies[-1]) & (band.high >= float(frequencies[-1]))
    inside = (frequencies > 0) & (frequencies >= band.low) & ((frequencies < band.high) | last)
    return float(power[inside].sum()), float(power[1:].sum())


def _precise(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32
