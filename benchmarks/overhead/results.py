"""The outcome of a run as plain values: what is kept as JSON and shown as tables."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.overhead.interleaved import Outcome
from benchmarks.overhead.monitors import BARE
from benchmarks.overhead.paired import Ratios, pairs_of, ratios, tolerance


@dataclass(frozen=True)
class Row:
    """One monitor on one workload.

    ``self_share``: what torchwatch says that watching cost in the measured blocks, as a share of their time
    (None for others). ``told``: all else that it said.
    """

    ratios: Ratios
    self_share: float | None
    told: dict[str, Any]

    @property
    def outside_share(self) -> float:
        """What the monitor cost as seen from outside, as a share of step time."""
        return 1 - 1 / self.ratios.total


@dataclass(frozen=True)
class Measured:
    """One workload: the time of a bare step (median, seconds), rows by monitor, and who failed and why."""

    bare_s: float
    tolerated: float
    rows: dict[str, Row]
    failed: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def summarise(outcome: Outcome) -> Measured:
    """Ratios of everything that ran."""
    pairs = pairs_of(outcome.blocks, BARE)
    if not pairs:
        raise ValueError(f"nothing was measured: {outcome.failed}")
    tolerated = tolerance([p for found in pairs.values() for p in found])
    rows = {}
    for kind, found in pairs.items():
        told = outcome.told.get(kind, {})
        agreeing = any(p.disagreement <= tolerated for p in found)
        figures = ratios(found, tolerated if agreeing else float("inf"))
        rows[kind] = Row(figures, self_share(told), told)
    bare = float(np.median([b.step_s for name, b in outcome.blocks if name == BARE]))
    return Measured(bare, tolerated, rows, outcome.failed)


def self_share(told: dict[str, Any]) -> float | None:
    """What watching cost by its own account, as a share of step time."""
    if not told.get("busy_s"):
        return None
    return float(told["watch_s"] / told["busy_s"])
