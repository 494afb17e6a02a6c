"""The gradient norm before clipping, taken from ``clip_grad_norm_`` itself: nothing is computed twice."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch


class ClippingProbe(Probe):
    """Total norm that ``torch.nn.utils.clip_grad_norm_`` computed on watched gradients since the last step.

    Where this release of torch cannot be observed, ``available`` is False and norms are after clipping.
    So they are where ``sharded``: a norm that is spread over ranks would take a collective to read.

    Args:
        observer: told by torch of every total norm of the process; calls :meth:`saw` in the training thread
            only, since another thread must not read gradients while they are being made.
    """

    name: ClassVar[str] = "clipping"
    writes: ClassVar[tuple[str, ...]] = ("grad_norm_preclip",)

    def __init__(self, observer: _torch.TotalNormObserver) -> None:
        self._observer = observer
        self._seen: dict[int, torch.Tensor] = {}
        self.available = False
        self.sharded = False

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """Start observing."""
        super().attach(patient, config)
        self.available = _torch.TOTAL_NORM.observe(self._observer)

    def saw(self, gradients: list[torch.Tensor], total: torch.Tensor) -> None:
        """A total norm was computed; it counts when its gradients are watched ones, the first time only."""
        first = next(iter(gradients), None)
        if first is None or not isinstance(total, torch.Tensor):
            return
        for index, parameter in self.patient.live_parameters():
            if parameter.grad is first:
                if _torch.has_values(total):
                    self._seen.setdefault(index, total.detach().clone())
                else:
                    self.sharded = True
                return

    def merge(self, frame: Frame) -> None:
        """Hand the norms over."""
        for total in self._seen.values():
            frame.put(self.name, frame.defer(total))
        self._seen = {}

    def detach(self) -> None:
        """Stop observing; the last watcher puts torch's own function back."""
        _torch.TOTAL_NORM.leave(self._observer)
        self._seen = {}

    def coverage(self) -> str:
        """``ok``, or why norms are those after clipping."""
        if not self.available:
            return "unavailable: norms are after clipping"
        return "unavailable: the norm is spread over ranks" if self.sharded else "ok"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """Norms of disjoint parameter sets add up in squares."""
        return {"grad_norm_preclip": float(np.sqrt(sum(float(values[slot][0]) ** 2 for slot in payloads)))}
