"""What was collected in forward passes, until it is known which of them are trained on."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Passes(Generic[T]):
    """Items of forward passes; they count once a gradient has arrived in their pass.

    Passes are numbered by the calls of the model that came before them. Where the model itself is never
    called (its parts are), everything belongs to one pass that never ends.

    Args:
        most: items kept at the longest; of those not yet trained on the oldest are forgotten, of those that
            are the newest are not taken in.

    Attributes:
        turn: number of the pass in progress, or of the next one.
    """

    def __init__(self, most: int) -> None:
        self.turn = 0
        self._most = most
        self._waiting: list[tuple[int, T]] = []
        self._taken: list[tuple[int, T]] = []
        self._told = -1

    def add(self, item: T, turn: int | None = None) -> None:
        """Keep an item of the pass in progress, or of pass ``turn``."""
        self._waiting.append((self.turn if turn is None else turn, item))
        del self._waiting[: -self._most]

    def end(self, *, recording: bool) -> None:
        """The pass is over; without autograd recording, nothing of it can be trained on."""
        if not recording:
            self._waiting = [entry for entry in self._waiting if entry[0] != self.turn]
        self.turn += 1

    def trained(self, turn: int) -> None:
        """A gradient arrived in the pass. Of one that does not end, what is added later counts as well."""
        self._told = turn
        arrived = [entry for entry in self._waiting if entry[0] == turn]
        if arrived:
            self._waiting = [entry for entry in self._waiting if entry[0] != turn]
            self._taken += arrived[: self._most - len(self._taken)]

    def take(self) -> list[T]:
        """Everything that was trained on since the last call, in the order of the passes."""
        if self._told == self.turn:
            self.trained(self.turn)
        self._told = -1
        taken, self._taken = self._taken, []
        return [item for _, item in sorted(taken, key=lambda entry: entry[0])]

    def forget(self) -> None:
        """Drop everything."""
        self._waiting, self._taken, self._told = [], [], -1
