"""Parameters that are not to be trained, and change inside the optimizer's step all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torchwatch.patient import Patient
from torchwatch.probe import Frame
from torchwatch.probes._slices import Moved, Slices, slices_of

_ELEMENTS = 256
_MOST = 512


class Frozen:
    """Compares a slice of every frozen parameter before and after the step.

    Weight decay and momentum move parameters that were frozen after a gradient had reached them; memory that
    is shared with a trained tensor moves them as well. At most 512 are looked at, the optimizer's own first.
    """

    def __init__(self) -> None:
        self._slices: list[Slices] = []
        self._of: list[int] = []
        self._structure = -1
        self._reading = False

    def before(self, patient: Patient, held: Sequence[int]) -> None:
        """Read them."""
        own = [i for i in held if (p := patient.parameters[i]()) is not None and not p.requires_grad]
        known = set(held)
        others = [i for i, p in patient.live_parameters() if not p.requires_grad and i not in known]
        frozen = (own + others)[:_MOST]
        if (
            frozen != self._of
            or self._structure != patient.structure
            or not all(slices.current() for slices in self._slices)
        ):
            self._of, self._structure = frozen, patient.structure
            living = [(i, p) for i in frozen if (p := patient.parameters[i]()) is not None]
            self._slices = slices_of(living, _ELEMENTS)
        for slices in self._slices:
            slices.before()
        self._reading = True

    def after(self, frame: Frame) -> list[Moved]:
        """Read them again."""
        if not self._reading:
            return []
        self._reading = False
        return [slices.after(frame) for slices in self._slices]

    def forget(self) -> None:
        """Let go of the parameters' memory."""
        self._slices, self._of, self._reading = [], [], False


def changed(moved: Moved, norms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    """Indices whose slice changed, from the norms of the changes."""
    return [int(i) for i in moved.indices[norms > 0]]
