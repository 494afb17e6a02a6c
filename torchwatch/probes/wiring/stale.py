"""Whether gradients were zeroed between optimizer steps."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torchwatch.patient import Patient
from torchwatch.probes import _torch


@dataclass(slots=True, eq=False)
class _Left:
    """A gradient as an optimizer left it; ``passes`` are the backward passes that reached its layer since."""

    gradient: weakref.ref[torch.Tensor]
    version: int
    passes: int = 0
    last_pass: int = -1
    stale: bool | None = None


class StaleGradients:
    """Looks whether the gradients that an optimizer used are still there when new ones arrive.

    A gradient is stale when, at the last backward pass before the next step, it is the same tensor, changed
    by nothing but that step's earlier passes. (In a GAN the generator's loss also reaches the discriminator's
    old gradients, which are zeroed before its own pass.)
    """

    def __init__(self) -> None:
        self._left: dict[int, _Left] = {}

    def forget(self) -> None:
        """Drop what was noted."""
        self._left = {}

    def leave(self, patient: Patient, held: Sequence[int]) -> None:
        """Note the gradients as the optimizer leaves them, one per layer."""
        for index in held:
            layer = patient.owners[index]
            parameter = patient.parameters[index]()
            gradient = None if parameter is None else parameter.grad
            if gradient is not None and patient.layers[layer].parameters[0] == index:
                self._left[index] = _Left(weakref.ref(gradient), gradient._version)

    def arrive(self, patient: Patient, layer: int) -> None:
        """The gradient of a layer's output arrived: its parameters' come next."""
        owned = patient.layers[layer].parameters
        left = self._left.get(owned[0]) if owned else None
        if left is None:
            return
        number = _torch.backward_pass()
        if number == left.last_pass:
            return
        parameter = patient.parameters[owned[0]]()
        gradient = None if parameter is None else parameter.grad
        same = gradient is not None and left.gradient() is gradient
        left.stale = same and gradient._version == left.version + left.passes  # type: ignore[union-attr]
        left.last_pass = number
        left.passes += 1

    def take(self, held: Sequence[int]) -> bool | None:
        """The step comes: whether most of its gradients are stale, None where none was watched."""
        if not self._left:
            return None
        looked = [self._left[i].stale for i in held if i in self._left and self._left[i].stale is not None]
        for index in held:
            self._left.pop(index, None)
        return 2 * sum(map(bool, looked)) >= len(looked) if looked else None
