"""Whether other models are trained beside the watched one, in its own loop."""

from __future__ import annotations

_TURNS = 3
_WITHIN = 20


class Company:
    """Optimizers of other models that step between the watched model's steps, again and again.

    The critic of a watched generator is one: the loss is then not expected to fall. Three turns, each at most
    20 steps after the one before, are company; a probe that is fitted now and then is not.
    """

    def __init__(self) -> None:
        self.types: list[str] = []
        self._last = -_WITHIN
        self._turns = 0

    def stepped(self, kind: str, number: int) -> bool:
        """An optimizer of class ``kind`` stepped after ``number`` own steps; True if it is new company."""
        if number != self._last:
            self._turns = self._turns + 1 if number - self._last <= _WITHIN else 1
            self._last = number
        if self._turns < _TURNS or kind in self.types:
            return False
        self.types.append(kind)
        return True
