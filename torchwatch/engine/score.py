"""One number for a run's health."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torchwatch.check import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

COST = {Severity.CRITICAL: 20, Severity.WARNING: 7, Severity.INFO: 2}
"""Points that an issue of each severity takes away."""

_MOST_FOR_INFOS = 10


def health_score(worst: Iterable[Severity]) -> int:
    """100 − 20 per critical − 7 per warning − 2 per info (10 at most for all infos), never below 0.

    Args:
        worst: for each check that found something, the worst severity of its issues, resolved or not.
    """
    count = Counter(worst)
    infos = min(_MOST_FOR_INFOS, COST[Severity.INFO] * count[Severity.INFO])
    loud = sum(COST[s] * count[s] for s in (Severity.CRITICAL, Severity.WARNING))
    return max(0, 100 - loud - infos)
