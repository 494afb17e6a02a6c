"""Mixed precision with a plain optimizer: the GradScaler's scale, and the steps that it skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch


class ScalingProbe(Probe):
    """Scale in force at the step, and whether the scaler skipped it.

    The scaler has unscaled a plain optimizer's gradients by then. Fused optimizers see scaled gradients and
    skip by themselves: :class:`~torchwatch.probes.gradients.GradientProbe` reads theirs.

    Args:
        skipped: told of every step that a scaler of the process skips; makes it a record.
    """

    name: ClassVar[str] = "scaling"
    writes: ClassVar[tuple[str, ...]] = ("grad_scale", "skipped")

    def __init__(self, skipped: _torch.SkipObserver) -> None:
        self._skipped = skipped
        self._available = True

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """Start observing."""
        super().attach(patient, config)
        self._available = _torch.SCALERS.observe(self._skipped)

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:  # noqa: ARG002
        """Note the scale; it is a device tensor that ``scaler.update()`` changes in place."""
        scale = _torch.SCALERS.scale(optimizer)
        if scale is not None:
            frame.put(self.name, (frame.defer(scale.detach().clone()), bool(frame.fields.get("skipped"))))

    def detach(self) -> None:
        """Stop observing; the last watcher puts torch's own method back."""
        _torch.SCALERS.leave(self._skipped)

    def coverage(self) -> str:
        """``ok``, or that skipped steps are not seen."""
        return "ok" if self._available else "unavailable: steps that a GradScaler skips are not seen"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """The scale of the last optimizer step in the record."""
        return {
            "grad_scale": float(values[payloads[-1][0]][0]),
            "skipped": any(skipped for _, skipped in payloads),
        }
