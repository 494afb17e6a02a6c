"""Whether gradients were zeroed between optimizer steps."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.schedule import Plan


@dataclass(slots=True, eq=False)
class _Left:
    """A gradient as an optimizer left it; ``passes`` are the backward passes that reached its layer since."""

    gradient: weakref.ref[torch.Tensor]
    version: int
    passes: int = 0
    last_pass: int = -1
    stale: bool | None = None


class WiringProbe(Probe):
    """Looks whether the gradients that an optimizer used are still there when new ones arrive.

    Watched on sampled steps, of which the first ten are all. A gradient is stale when, at the last backward
    pass before the next step, it is the same tensor, changed by nothing but that step's earlier passes. (In a
    GAN the generator's loss also reaches the discriminator's old gradients, which are zeroed before its own
    pass.)
    """

    name: ClassVar[str] = "wiring"
    writes: ClassVar[tuple[str, ...]] = ("stale_gradients",)

    def __init__(self) -> None:
        self._armed = False
        self._left: dict[int, _Left] = {}
        self._ready = False

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Watch the next step."""
        self._armed = True

    def disarm(self) -> None:
        """Stop watching."""
        self._armed = False
        self._left = {}

    def forget(self) -> None:
        """The model changed: what was noted of it has old indices."""
        self._left = {}

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Note the gradients as the optimizer leaves them, one per layer, if the next step is watched."""
        if not self._armed:
            return
        for index in held:
            layer = self.patient.owners[index]
            parameter = self.patient.parameters[index]()
            gradient = None if parameter is None else parameter.grad
            if gradient is not None and self.patient.layers[layer].parameters[0] == index:
                self._left[index] = _Left(weakref.ref(gradient), gradient._version)

    def gradient_arrives(self, layer: int) -> None:
        """The gradient of a layer's output arrived: its parameters' come next."""
        owned = self.patient.layers[layer].parameters
        left = self._left.get(owned[0]) if owned else None
        if left is None:
            return
        number = _torch.backward_pass()
        if number == left.last_pass:
            return
        parameter = self.patient.parameters[owned[0]]()
        gradient = None if parameter is None else parameter.grad
        same = gradient is not None and left.gradient() is gradient
        left.stale = same and gradient._version == left.version + left.passes  # type: ignore[union-attr]
        left.last_pass = number
        left.passes += 1

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:  # noqa: ARG002
        """The step comes: say what was seen, if this step was watched."""
        looked = [self._left[i].stale for i in held if i in self._left and self._left[i].stale is not None]
        for index in held:
            self._left.pop(index, None)
        if looked:
            frame.put(self.name, 2 * sum(map(bool, looked)) >= len(looked))

    def detach(self) -> None:
        """Drop everything."""
        self.disarm()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """True when any optimizer of the step used stale gradients."""
        return {"stale_gradients": any(payloads)}
