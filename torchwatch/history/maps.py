"""Fields of steps that are maps or words: the last values, with the steps at which they held."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.records import Step, Steps

NAMES = ("fingerprint", "inputs", "targets", "wiring", "first_nonfinite")

STRETCHES = 64
"""Stretches that are kept of each field."""


class Stretch(NamedTuple):
    """A value that was the same in consecutive steps, from ``first`` to ``last``."""

    first: int
    last: int
    value: Any


class Maps:
    """The last stretches of every such field. A step without the field ends its stretch."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[Stretch]] = {name: deque(maxlen=STRETCHES) for name in NAMES}

    def take_step(self, record: Step) -> None:
        """Take in one step."""
        for name in NAMES:
            value = getattr(record, name)
            if value is not None:
                self._put(name, record.step, value)

    def take_steps(self, record: Steps) -> None:
        """Take in a line of steps: the same as one by one."""
        for name in NAMES:
            column = getattr(record, name)
            if column is not None:
                for step, value in zip(record.step, column, strict=True):
                    if value is not None:
                        self._put(name, step, value)

    def _put(self, name: str, step: int, value: Any) -> None:
        kept = self._kept[name]
        if kept and kept[-1].last == step - 1 and kept[-1].value == value:
            kept[-1] = Stretch(kept[-1].first, step, kept[-1].value)
        else:
            kept.append(Stretch(step, step, value))

    def forget(self, name: str) -> None:
        """Drop the values of a field."""
        self._kept[name].clear()

    def stretches(self, name: str, last: int | None = None) -> Sequence[Stretch]:
        """The last stretches of a field, oldest first."""
        kept = self._kept.get(name, ())
        return tuple(kept)[-last:] if last else tuple(kept) if last is None else ()

    def value_at(self, name: str, step: int) -> Any:
        """The value at a step."""
        for stretch in reversed(self._kept.get(name, ())):
            if stretch.last < step:
                return None
            if stretch.first <= step:
                return stretch.value
        return None
