"""From blocks of steps to ratios: a monitor's block against the bare blocks just before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 4000
_LEAST_TOLERANCE = 0.02


@dataclass(frozen=True)
class Block:
    """A run of steps without a pause: how many, wall time and CPU time of the process (both seconds)."""

    steps: int
    seconds: float
    cpu_s: float = 0.0

    @property
    def step_s(self) -> float:
        """Wall time of a step."""
        return self.seconds / self.steps


@dataclass(frozen=True)
class Pair:
    """A monitor's block and its two bare neighbours."""

    before: Block
    block: Block
    after: Block

    @property
    def bare_s(self) -> float:
        """What as many bare steps take."""
        return self.block.steps * (self.before.step_s + self.after.step_s) / 2

    @property
    def ratio(self) -> float:
        """Wall time against bare wall time."""
        return self.block.seconds / self.bare_s

    @property
    def cpu_ratio(self) -> float:
        """CPU time against that of as many bare steps; not a number where it was not measured."""
        bare = (self.before.cpu_s / self.before.steps + self.after.cpu_s / self.after.steps) / 2
        return self.block.cpu_s / self.block.steps / bare if bare else float("nan")

    @property
    def disagreement(self) -> float:
        """How far the two bare blocks are apart, relative to their mean."""
        first, second = self.before.step_s, self.after.step_s
        return 2 * abs(first - second) / (first + second)


@dataclass(frozen=True)
class Ratios:
    """What a monitor costs on a workload, as monitored ÷ bare step time.

    ``median``, ``quartiles``: over pairs. ``total``: all monitored time over what as many bare steps take,
    so that work which is done on few steps counts in full; ``interval`` its bootstrap 95 % interval,
    ``upper`` its one-sided 95 % bound. ``cpu``: median over pairs for CPU time of all threads of the process,
    which other programs on the machine disturb less. ``pairs`` were used, ``left_out`` not.
    """

    median: float
    quartiles: tuple[float, float]
    total: float
    interval: tuple[float, float]
    upper: float
    cpu: float
    pairs: int
    left_out: int


def tolerance(pairs: Sequence[Pair]) -> float:
    """How far the bare neighbours of a pair may disagree: twice the median, at least 2 %."""
    return max(_LEAST_TOLERANCE, 2 * float(np.median([p.disagreement for p in pairs])))


def ratios(pairs: Sequence[Pair], tolerated: float = float("inf"), seed: int = 0) -> Ratios:
    """Ratios over the pairs whose bare neighbours agree within ``tolerated``.

    Which pairs are left out depends on the bare blocks alone, so that it cannot favour a monitor.

    Raises:
        ValueError: no pair is left.
    """
    used = [p for p in pairs if p.disagreement <= tolerated]
    if not used:
        raise ValueError("no pair whose bare neighbours agree")
    each = np.array([p.ratio for p in used])
    watched, bare = np.array([p.block.seconds for p in used]), np.array([p.bare_s for p in used])
    drawn = np.random.default_rng(seed).integers(0, len(used), (_RESAMPLES, len(used)))
    totals = watched[drawn].sum(1) / bare[drawn].sum(1)
    lower, upper = np.quantile(totals, (0.025, 0.975))
    first, middle, third = np.quantile(each, (0.25, 0.5, 0.75))
    return Ratios(
        median=float(middle),
        quartiles=(float(first), float(third)),
        total=float(watched.sum() / bare.sum()),
        interval=(float(lower), float(upper)),
        upper=float(np.quantile(totals, 0.95)),
        cpu=float(np.median([p.cpu_ratio for p in used])),
        pairs=len(used),
        left_out=len(pairs) - len(used),
    )


def pairs_of(blocks: Sequence[tuple[str, Block]], bare: str) -> dict[str, list[Pair]]:
    """The blocks as they were run, sorted into pairs by monitor; ``bare`` is the name of the bare loop."""
    found: dict[str, list[Pair]] = {}
    for (left, before), (name, block), (right, after) in zip(blocks, blocks[1:], blocks[2:], strict=False):
        if name != bare and left == right == bare:
            found.setdefault(name, []).append(Pair(before, block, after))
    return found
