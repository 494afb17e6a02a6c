"""The black box: the last measured steps in memory, written in full when something critical happens."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

from torchwatch.records import Blackbox, Step

_FIELDS = tuple(f.name for f in dataclasses.fields(Step))


class BlackboxBuffer:
    """Keeps the last measured steps, with the columns that the file may leave out.

    Args:
        steps: how many (default 50; 0: none).
    """

    def __init__(self, steps: int = 50) -> None:
        self._steps: deque[Step] = deque(maxlen=steps)
        self._written = 0

    def add(self, step: Step) -> None:
        """Keep a step that was measured."""
        self._steps.append(step)

    def record(self, reason: str, step: int, time_s: float) -> Blackbox | None:
        """The record, None when nothing was measured since the one before: it is in that one."""
        fresh = [s for s in self._steps if s.step > self._written]
        if not fresh:
            return None
        self._written = fresh[-1].step
        return Blackbox(step=step, time_s=time_s, reason=reason, steps=[_as_map(s) for s in fresh])


def _as_map(step: Step) -> dict[str, Any]:
    return {name: value for name in _FIELDS if (value := getattr(step, name)) is not None}
