"""Plain steps of a loop that pauses: read where they wait, before the training thread hands them over.

Steps of the fast lane wait for a later step to hand them over. Where no step comes (a long evaluation, a
breakpoint, a sleep) they would be missing after a kill, however old they are. So the recorder reads what has
waited too long, and skips it when the block arrives. The training thread does nothing for it, and no lock is
taken: its lists only grow at their ends, and copying a list is one operation of the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torchwatch.probe import Block

_OVERDUE_S = 0.5


class EarlySteps:
    """Reads overdue steps of the block that is still growing. All of it runs in the recorder thread.

    The newest step is left alone: its values may still be logged. So is everything from the first step on
    that has a value on a device: reading it could wait for the device or spoil a capture of the host's.

    Args:
        growing: the block that the training thread fills, if there is one, and what torchwatch took in the
            training thread since the last one was handed over (seconds).
        overdue_s: how old the oldest step must be (seconds, default 0.5).
    """

    def __init__(
        self, growing: Callable[[], tuple[Block | None, float]], overdue_s: float = _OVERDUE_S
    ) -> None:
        self._growing, self._overdue_s = growing, overdue_s
        self._told = 0
        self._told_s = 0.0
        self._owed_s = 0.0

    def take(self, now: float) -> Block | None:
        """Steps that are complete and have waited too long at time ``now`` (seconds), if there are any.

        The same ones are given again until :meth:`took` is called.
        """
        block, watch_s = self._growing()
        if block is None:
            return None
        copy = Block(block.first, block.epoch, block.started_s)
        copy.ends = list(block.ends)  # first: of all steps but the last, the rest is complete by then
        newest = len(copy.ends) - 1
        start = max(self._told + 1 - block.first, 0)
        if start >= newest or now - copy.ends[start] < self._overdue_s:
            return None
        copy.logged, copy.fetched = list(block.logged), list(block.fetched)
        copy.rates, copy.restarts = list(block.rates), list(block.restarts)
        stop = min([newest, *(at for at, _, value in copy.logged if _is_remote(value))])
        if stop <= start:
            return None
        part = copy.part(start, stop)
        untold_s = max(watch_s - (self._told_s if start else 0.0), 0.0)
        part.watch_s = untold_s * (stop - start) / (len(copy.ends) - start)
        return part

    def took(self, part: Block) -> None:
        """What :meth:`take` gave is recorded."""
        self._told_s = part.watch_s + (self._told_s if part.first == self._told + 1 else 0.0)
        self._told = part.first + len(part.ends) - 1

    def rest(self, block: Block) -> Block | None:
        """Of a block that was handed over, what has not been taken; None where that is nothing."""
        start = max(self._told + 1 - block.first, 0)
        untold_s = self._owed_s + block.watch_s
        if start:
            untold_s, self._told_s = max(untold_s - self._told_s, 0.0), 0.0
        if start >= len(block.ends):
            self._owed_s = untold_s
            return None
        part, self._owed_s = block.part(start) if start else block, 0.0
        part.watch_s = untold_s
        return part


def _is_remote(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type != "cpu"
