"""Where the learning rate warmed up and where it was raised again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST_WARM_UP = 20
"""Steps that count as warm-up in any case."""

_MOST_RISES = 64
_RISE = 1.1


class LearningRate:
    """Follows the largest learning rate of every step.

    A rise belongs to warm-up while the rate never fell before and the rise before it (or the start) is at
    most 20 steps, one record or one epoch away, so that a staircase over epochs is warm-up too, and so is a
    rise that an imported log shows at every hundredth step. After that every rise
    by more than 10 % above the lowest rate since the last one is noted: a restart, or one mark per 10 % of
    a climb.
    """

    def __init__(self) -> None:
        self.warm_up_end = SHORTEST_WARM_UP
        self.rises: list[int] = []
        self._last: float | None = None
        self._lowest = 0.0
        self._rose: tuple[int, int | None] = (0, None)
        self._fell = False

    def put(self, step: int, epoch: int | None, rate: float, gap: int = 1) -> None:
        """Take in the rate of one step, ``gap`` steps after the record before."""
        last, self._last = self._last, rate
        if last is None:
            self._rose, self._lowest = (step, epoch), rate
        elif rate < last:
            self._fell = True
            self._lowest = min(self._lowest, rate)
        elif rate > last and self._is_warm_up(step, epoch, gap):
            self._rose, self._lowest = (step, epoch), rate
            self.warm_up_end = max(SHORTEST_WARM_UP, step)
        elif rate > last and rate > _RISE * self._lowest:
            self._lowest = rate
            self.rises = [*self.rises[1 - _MOST_RISES :], step]

    def extend(
        self, steps: Sequence[int], epochs: Sequence[int | None], rates: Sequence[float | None]
    ) -> None:
        """Take in consecutive steps."""
        if rates and rates[0] == self._last and rates.count(rates[0]) == len(rates):
            return
        for step, epoch, rate in zip(steps, epochs, rates, strict=True):
            if rate is not None and rate != self._last:
                self.put(step, epoch, rate)

    def _is_warm_up(self, step: int, epoch: int | None, gap: int) -> bool:
        if self._fell:
            return False
        since, since_epoch = self._rose
        near_epoch = epoch is not None and since_epoch is not None and epoch - since_epoch <= 1
        # Before the first epoch has ended nothing tells how long one is, so there only the steps count.
        return step - since <= max(SHORTEST_WARM_UP, gap) or (near_epoch and epoch != since_epoch)
