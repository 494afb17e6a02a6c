"""Whose turn it is, where several kinds of records want what comes in: each gets its share of the bytes.

Whoever is offered first would take all. Complete columns are, on every sampled step, and a record of
attention that is ten times as large would never find enough in the bank.
"""

from __future__ import annotations

_FORGOTTEN_OFFERS = 100


class Shares:
    """Fair queueing by bytes: a kind yields to another that waits and has had less (max-min fairness).

    Who asks for less than a share gets all of it. A kind that has asked for nothing for a while does not save
    up for it: it comes back with at most ``burst`` bytes to catch up.

    Args:
        burst: bytes.
    """

    def __init__(self, burst: float) -> None:
        self._burst = burst
        self._had: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._offers = 0

    def offer(self, kind: str) -> bool:
        """A record of this kind could be written; whether it is its turn."""
        self._offers += 1
        others = [bytes_ for name, bytes_ in self._had.items() if name != kind]
        least = min(others, default=0.0) - self._burst
        own = self._had[kind] = max(self._had.get(kind, min(others, default=0.0)), least)
        return all(
            self._had[name] >= own
            for name, since in self._waiting.items()
            if name != kind and self._offers - since <= _FORGOTTEN_OFFERS
        )

    def took(self, kind: str, size: float) -> None:
        """It is written and takes so many bytes."""
        self._had[kind] += size
        self._waiting.pop(kind, None)

    def waits(self, kind: str) -> None:
        """It was its turn, but there is not enough yet."""
        self._waiting[kind] = self._offers
