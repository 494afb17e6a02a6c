"""What watching may cost, and whether it was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.overhead.monitors import KINDS
from benchmarks.overhead.results import Row

Rows = Mapping[str, Mapping[str, Row]]
"""workload → monitor → what was measured."""

_DEFAULT = {"tiny": 1.06, "mlp": 1.02, "conv": 1.02, "gpt": 1.02}
_EVERYTHING = {"mlp": 1.06, "conv": 1.15, "gpt": 1.06}
_BUDGET_BOUND = {"mlp": 1.02, "conv": 1.02, "gpt": 1.02}
_SELF_WITHIN = 0.003
_PEER_FACTOR = {"tiny": 10.0, "mlp": 10.0, "conv": 5.0, "gpt": 10.0}
_RESOLVED = 0.001
"""Added shares below this are not told apart from nothing."""


@dataclass(frozen=True)
class Judged:
    """A goal beside what was measured."""

    claim: str
    workload: str
    goal: str
    measured: str
    met: bool


def judge(rows: Rows) -> list[Judged]:
    """All goals whose monitors were measured."""
    return [judged for rule in (_medians, _budget, _wandb, _activations) for judged in rule(rows)]


def _medians(rows: Rows) -> Iterator[Judged]:
    for kind, goals in (("default", _DEFAULT), ("everything", _EVERYTHING)):
        for workload, most in goals.items():
            row = rows.get(workload, {}).get(kind)
            if row is not None:
                median = row.ratios.median
                claim = f"{kind}: median ratio"
                yield Judged(claim, workload, f"≤ {most:.2f}", f"{median:.3f}", median <= most)


def _budget(rows: Rows) -> Iterator[Judged]:
    for workload, most in _BUDGET_BOUND.items():
        row = rows.get(workload, {}).get("default")
        if row is None:
            continue
        upper = row.ratios.upper
        yield Judged(
            "budget: upper bound from outside", workload, f"≤ {most:.2f}", f"{upper:.3f}", upper <= most
        )
        if row.self_share is not None:
            apart = abs(row.outside_share - row.self_share)
            measured = f"{row.self_share:.2%} said, {row.outside_share:.2%} outside"
            goal = f"within {_SELF_WITHIN * 100:.1f} points"
            yield Judged("budget: self-reported cost", workload, goal, measured, apart <= _SELF_WITHIN)


def _wandb(rows: Rows) -> Iterator[Judged]:
    for workload, least in _PEER_FACTOR.items():
        ours, theirs = (rows.get(workload, {}).get(k) for k in ("everything", "wandb-all"))
        if ours is None or theirs is None:
            continue
        factor = added_factor(theirs, ours)
        sign = "> " if ours.ratios.median - 1 < _RESOLVED else ""
        yield Judged(
            'everything: added time of `wandb.watch("all")` ÷ ours',
            workload,
            f"≥ {least:.0f}",
            f"{sign}{factor:.1f}",
            factor >= least,
        )


def added_factor(theirs: Row, ours: Row) -> float:
    """How many times more time one monitor adds than another, from medians."""
    return (theirs.ratios.median - 1) / max(ours.ratios.median - 1, _RESOLVED)


def _activations(rows: Rows) -> Iterator[Judged]:
    for workload, measured in rows.items():
        ours = measured.get("everything")
        others = {k: r for k, r in measured.items() if KINDS[k].activations and k != "everything"}
        if ours is None or not others:
            continue
        best = min(others, key=lambda k: others[k].ratios.median)
        least, median = others[best].ratios.median, ours.ratios.median
        yield Judged(
            "everything: below every other monitor of activations",
            workload,
            f"< {least:.3f} ({best})",
            f"{median:.3f}",
            median < least,
        )
