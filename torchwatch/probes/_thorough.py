"""Which sampled steps also get what is exact but reads all parameters several times."""

from __future__ import annotations

from torchwatch.probe import Frame

APART = 50
"""Steps from one thorough step to the next, at least."""


class Thorough:
    """Picks rare steps that lie at least :data:`APART` steps apart; the first sampled step is one.

    A full update ratio moves six times the parameters' bytes and the share of near-zero weights four times: a
    third of a training step of a small network on the CPU. Every 50th step that is below one per cent, also
    where every step is sampled.
    """

    def __init__(self) -> None:
        self._last = -APART

    def due(self, frame: Frame) -> bool:
        """Whether this step is one; the same answer for all optimizers of the step."""
        if not frame.rare:
            return False
        if frame.number != self._last:
            if frame.number < self._last + APART:
                return False
            self._last = frame.number
        return True
