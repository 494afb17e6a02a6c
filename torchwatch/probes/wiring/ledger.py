"""What the map says so far: since when something has been so, and what was written last."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

MOST = 64
"""Indices in a list of the map."""


class Ledger:
    """The state of the map under one layout. Touched by the recorder thread only."""

    def __init__(self) -> None:
        self._layers: Sequence[Any] = ()
        self._since: dict[str, dict[int, int]] = {}
        self._said: dict[str, Any] = {}
        self._written: dict[str, Any] | None = None

    def is_of(self, layers: Sequence[Any]) -> None:
        """Start anew when the model is another one by now: indices mean something else."""
        if layers is not self._layers:
            self._layers, self._since, self._said, self._written = layers, {}, {}, None

    def observe(self, key: str, step: int, looked: Collection[int], found: Collection[int]) -> None:
        """Of the parameters that were ``looked`` at in a step, these were so; of others nothing is known."""
        since = self._since.setdefault(key, {})
        for index in looked:
            if index not in found:
                since.pop(index, None)
        for index in found:
            since.setdefault(index, step)

    def say(self, key: str, value: Any) -> None:
        """Let a key hold a value; None leaves it out."""
        if value is None:
            self._said.pop(key, None)
        else:
            self._said[key] = value

    def changed(self) -> dict[str, Any] | None:
        """The map, if it differs from the one that was written before."""
        state: dict[str, Any] = {}
        more: dict[str, int] = {}
        for key, value in self._said.items():
            state[key] = _cut(key, value, more) if isinstance(value, list) else value
        for key, since in self._since.items():
            if since:
                indices = sorted(since)
                state[key] = _cut(key, indices, more)
                state[f"{key}_since"] = [since[index] for index in indices[:MOST]]
        if more:
            state["more"] = more
        if state == self._written:
            return None
        self._written = state
        return state


def _cut(key: str, values: list[Any], more: dict[str, int]) -> list[Any]:
    if len(values) > MOST:
        more[key] = len(values) - MOST
    return values[:MOST]
