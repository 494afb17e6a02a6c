"""Units over a window of samples: which are dead, which are dormant.

All layers of a device lie behind each other in one tensor, so that a step costs a few kernels however many
layers there are; what differs from layer to layer are only numbers of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

SILENT = 1e-6
"""A unit whose |activation| never exceeds this is silent."""

DORMANT = 0.025
"""A unit whose mean |activation| is at most this share of its layer's mean is dormant (Sokar et al. 2023)."""

_WIDTHS = 4

Key = tuple[int, int]
"""A layer and how many units it has: a module that is called with several widths has several windows (4)."""


class Call(NamedTuple):
    """Units of one call: its layer and samples; ``peaks`` and ``activity`` have the shape (units,)."""

    layer: int
    samples: int
    peaks: torch.Tensor
    activity: torch.Tensor


class Shares(NamedTuple):
    """Of each key the share of dead and of dormant units: ``values`` is (2, keys), on the units' device."""

    keys: list[Key]
    values: torch.Tensor


@dataclass(slots=True)
class _Count:
    """Samples of one key: since its window began, and in the two halves of the mean."""

    seen: int = 0
    older: int = 0
    newer: int = 0


@dataclass(slots=True)
class _Row:
    """All units of some keys behind each other.

    ``silent`` is for how many samples a unit has been silent; ``older`` and ``newer`` are Σ samples · mean
    |a| over the last full stretch of the window's length and over the one that is being filled.
    """

    keys: list[Key]
    silent: torch.Tensor
    older: torch.Tensor
    newer: torch.Tensor
    segments: torch.Tensor
    widths: torch.Tensor

    def spans(self, keys: Iterable[Key]) -> Iterator[tuple[Key, slice]]:
        """Where each of the keys lies."""
        wanted, start = set(keys), 0
        for key in self.keys:
            if key in wanted:
                yield key, slice(start, start + key[1])
            start += key[1]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Per key. Shape (keys,)."""
        sums = torch.zeros_like(self.widths)
        return sums.index_add_(0, self.segments, values).div_(self.widths)


@dataclass(slots=True)
class UnitWindows:
    """The windows of a model's units.

    A unit is **dead** once it was silent in every one of the last ``samples`` samples. **Dormant** units are
    judged by their mean over the last one to two times as many.

    Attributes:
        samples: length of the window.
    """

    samples: int
    _counts: dict[Key, _Count] = field(default_factory=dict)
    _rows: dict[torch.device, _Row] = field(default_factory=dict)
    _resting: dict[tuple[torch.device, Key], tuple[torch.Tensor, ...]] = field(default_factory=dict)

    def update(self, calls: Iterable[Call]) -> list[Shares]:
        """Take in what a step saw; the shares of the keys among it whose window is full."""
        found = []
        for device, pooled in _by_device(calls).items():
            keys = sorted(key for key in pooled if self._admits(key))
            if not keys:
                continue
            row = self._rows.get(device)
            if row is None or row.keys != keys:
                row = self._arrange(device, keys, row)
            self._advance(row, [pooled[key] for key in keys])
            shares = self._judge(row)
            if shares is not None:
                found.append(shares)
        return found

    def _admits(self, key: Key) -> bool:
        """Whether the key is known, or its layer has few others, and it becomes known: memory is bounded."""
        if key not in self._counts:
            if sum(layer == key[0] for layer, _ in self._counts) >= _WIDTHS:
                return False
            self._counts[key] = _Count()
        return True

    def _arrange(self, device: torch.device, keys: list[Key], before: _Row | None) -> _Row:
        """Other layers ran than in the step before: those that rest keep what they had."""
        if before is not None:
            for key, span in before.spans(before.keys):
                part = (before.silent[span], before.older[span], before.newer[span])
                self._resting[device, key] = tuple(p.clone() for p in part)
        parts = []
        for key in keys:
            rested = self._resting.pop((device, key), None)
            parts.append(_nothing(key[1], device) if rested is None else rested)
        silent, older, newer = (torch.cat(column) for column in zip(*parts, strict=True))
        row = self._rows[device] = _Row(
            keys,
            silent,
            older,
            newer,
            torch.cat([torch.full((k[1],), n, dtype=torch.int64, device=device) for n, k in enumerate(keys)]),
            torch.cat([torch.full((1,), k[1], dtype=torch.float32, device=device) for k in keys]),
        )
        return row

    def _advance(self, row: _Row, calls: list[Call]) -> None:
        peaks = torch.cat([call.peaks for call in calls])
        activity = torch.cat([call.activity for call in calls])
        # NaN is not silence: only a peak that was seen to be small leaves the unit where it was.
        quiet = torch.le(peaks, SILENT, out=peaks)
        start = 0
        for samples, same in itertools.groupby(calls, key=lambda call: call.samples):
            span = slice(start, start + sum(len(call.peaks) for call in same))
            row.silent[span].add_(samples).mul_(quiet[span]).clamp_(max=self.samples)
            row.newer[span].add_(activity[span], alpha=samples)
            start = span.stop
        full = []
        for key, call in zip(row.keys, calls, strict=True):
            count = self._counts[key]
            count.seen = min(count.seen + call.samples, self.samples)
            count.newer += call.samples
            if count.newer >= self.samples:
                count.older, count.newer = count.newer, 0
                full.append(key)
        if len(full) == len(row.keys):
            row.older, row.newer = row.newer, row.older.zero_()
        elif full:
            for _, span in row.spans(full):
                row.older[span] = row.newer[span]
                row.newer[span] = 0

    def _judge(self, row: _Row) -> Shares | None:
        """Dead and dormant; None as long as no window is full."""
        full = [n for n, key in enumerate(row.keys) if self._counts[key].seen >= self.samples]
        if not full:
            return None
        dead = row.mean(torch.ge(row.silent, self.samples, out=torch.empty_like(row.silent)))
        total = row.older + row.newer
        level = row.mean(total)
        least = (level * DORMANT).index_select(0, row.segments)
        dormant = row.mean(torch.le(total, least, out=total))
        dormant = torch.where(torch.isfinite(level), dormant, torch.nan)
        values = torch.stack([dead, dormant])
        if len(full) == len(row.keys):
            return Shares(row.keys, values)
        return Shares([row.keys[n] for n in full], torch.stack([values[:, n] for n in full], 1))


def _nothing(units: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(units, dtype=torch.float32, device=device) for _ in range(3))


def _by_device(calls: Iterable[Call]) -> dict[torch.device, dict[Key, Call]]:
    """The calls by device and key, those of one key pooled."""
    found: dict[torch.device, dict[Key, Call]] = {}
    for call in calls:
        pooled = found.setdefault(call.peaks.device, {})
        key = (call.layer, len(call.peaks))
        known = pooled.get(key)
        pooled[key] = call if known is None else _together(known, call)
    return found


def _together(one: Call, other: Call) -> Call:
    samples = one.samples + other.samples
    activity = (one.activity * one.samples + other.activity * other.samples) / samples
    return Call(one.layer, samples, torch.maximum(one.peaks, other.peaks), activity)
