"""Which sampled steps also get what is exact but reads all parameters several times."""

from __future__ import annotations

from torchwatch.probe import Frame

APART = 10
"""Steps from one thorough step to the next, at least."""


class Thorough:
    """Picks sampled steps that lie at least :data:`APART` steps apart.

    A full update ratio moves six times the parameters' bytes and the share of near-zero weights four times.
    Where sampled steps are far apart, as the budget has them, each is thorough; where every step is sampled
    (the first ones, a zoom, ``activations_every=1``) every tenth is.
    """

    def __init__(self) -> None:
        self._last = -APART

    def due(self, frame: Frame) -> bool:
        """Whether this step is one; the same answer for all optimizers of the step."""
        if not frame.sampled:
            return False
        if frame.number != self._last:
            if frame.number < self._last + APART:
                return False
            self._last = frame.number
        return True
