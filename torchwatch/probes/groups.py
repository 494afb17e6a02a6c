"""Momentum and weight decay of every parameter group, on sampled steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from torchwatch.probe import Frame, Probe, Values


class GroupProbe(Probe):
    """Momentum and weight decay per group, all optimizers in the layout's order, as ``lr``.

    Adam's β₁ is its momentum. A group whose optimizer knows no such option has 0: it does nothing of the
    kind.
    """

    name: ClassVar[str] = "groups"
    writes: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay")

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Note the options; one that is a tensor is read later."""
        if not frame.sampled:
            return
        living = [o for entry in self.patient.optimizers if (o := entry.reference()) is not None]
        groups = [group for o in living for group in o.param_groups]
        options = [(_momentum(group), group.get("weight_decay", 0.0)) for group in groups]
        frame.put(self.name, [tuple(_kept(frame, option) for option in pair) for pair in options])

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """The options at the last optimizer step in the record."""
        momentum, weight_decay = [], []
        for pair in payloads[-1]:
            first, second = (float(values[o[0]][0]) if isinstance(o, tuple) else o for o in pair)
            momentum.append(first)
            weight_decay.append(second)
        return {"momentum": momentum, "weight_decay": weight_decay}


def _momentum(group: Mapping[str, Any]) -> Any:
    betas = group.get("betas")
    if isinstance(betas, (tuple, list)) and betas:
        return betas[0]
    return group.get("momentum", 0.0)


def _kept(frame: Frame, option: Any) -> Any:
    """An option that stays what it is: a number, or a slot of the frame in a tuple."""
    if isinstance(option, torch.Tensor):
        return (frame.defer(option.detach().clone().reshape(-1)[:1]),)
    return float(option) if isinstance(option, (int, float)) else 0.0
