"""One probe by itself: its moments called by hand, its fields decoded."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torchwatch.attachment.quiet import Quiet
from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe
from torchwatch.schedule import Plan


class Bench:
    """A probe attached to a model, with an optimizer that holds its parameters."""

    def __init__(
        self,
        probe: Probe,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        config: WatchConfig | None = None,
    ) -> None:
        self.probe, self.model = probe, model
        self.patient = Patient(model)
        self.optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
        self.held = self.patient.held_by(self.optimizer)
        probe.attach(self.patient, config or WatchConfig())
        self.number = 0

    def step(self, *, sampled: bool = False, rare: bool | None = None, update: Any = None) -> dict[str, Any]:
        """One optimizer step, as the attachment tells of it; ``update()`` stands for the optimizer's work.

        ``rare``: as ``sampled`` where not given.
        """
        self.number += 1
        rare = sampled if rare is None else rare
        plan = Plan(self.number, gradients=True, sampled=sampled, rare=rare, sentinel=False)
        frame = Frame(plan)
        with Quiet():
            self.probe.merge(frame)
            self.probe.gradients(frame, self.optimizer, self.held)
            self.probe.before_step(frame, self.optimizer, self.held)
            if update is not None:
                update()
            self.probe.after_step(frame, self.optimizer, self.held)
        return self.decode(frame)

    def decode(self, frame: Frame) -> dict[str, Any]:
        """What the recorder makes of a frame."""
        frame.widths = (len(self.patient.parameters), len(self.patient.layers))
        payloads = frame.payloads.get(self.probe.name, [])
        if not payloads:
            return {}
        return type(self.probe).decode(payloads, frame.values(), frame)


def parameters(
    *shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0
) -> nn.ParameterList:
    """Parameters of these shapes with normal values."""
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return nn.ParameterList([nn.Parameter(v) for v in values])
