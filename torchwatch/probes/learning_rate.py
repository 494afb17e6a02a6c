"""The learning rate of every parameter group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from torchwatch.probe import Frame, Probe, Values


class LearningRateProbe(Probe):
    """Learning rates at the moment of the step, all optimizers in the layout's order.

    An optimizer that does not step in this record (a GAN's other half) shows its last known rates.
    """

    name: ClassVar[str] = "learning_rate"
    writes: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self) -> None:
        self._known: dict[int, list[Any]] = {}

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Note the rates; a rate that is a tensor is read later."""
        rates = [group.get("lr") for group in optimizer.param_groups]
        if not all(type(rate) is float for rate in rates):
            rates = [r.detach().clone() if isinstance(r, torch.Tensor) else r for r in rates]
        self._known[id(optimizer)] = rates
        if len(self.patient.optimizers) > 1 or len(self._known) > 1:
            live = [id(entry.reference()) for entry in self.patient.optimizers]
            self._known = {k: v for k, v in self._known.items() if k in live}
            rates = [rate for key in live for rate in self._known.get(key, ())]
        frame.put(self.name, [(frame.defer(r),) if isinstance(r, torch.Tensor) else r for r in rates])

    def detach(self) -> None:
        """Forget all rates."""
        self._known = {}

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """The rates of the last optimizer step in the record."""
        rates = [float(values[rate[0]][0]) if isinstance(rate, tuple) else rate for rate in payloads[-1]]
        return {"lr": [float(r) for r in rates if r is not None]}
