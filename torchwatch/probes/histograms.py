"""Histograms of gradients and activations, on powers of two. Opt-in: ``WatchConfig(histograms=True)``.

On sampled steps a :class:`~torchwatch.records.Histogram` record holds ``gradients`` by parameter, as the
optimizer finds them (after clipping; still scaled where a fused optimizer unscales them itself), and
``activations`` by layer: first outputs, all calls of the passes that were trained on. Each has ``edges``,
``counts`` and ``nonfinite`` (NaN and infinite entries, in no bucket), of up to 65,536 evenly spaced entries
of every tensor; :mod:`torchwatch.probes._buckets` says what a bucket holds. The first 1,000 parameters and
layers have histograms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.probes._buckets import counts, histogram
from torchwatch.probes._passes import Passes
from torchwatch.probes.activations import tensors
from torchwatch.records import Histogram
from torchwatch.schedule import Plan

_MOST_NAMES = 1000
_MOST_CALLS = 4096
_WIDTH = 512


class HistogramProbe(Probe):
    """Histograms of sampled steps."""

    name: ClassVar[str] = "histograms"
    writes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._passes: Passes[tuple[int, torch.Tensor]] = Passes(_MOST_CALLS)
        self._armed = self._inside = False

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Collect, if that is wanted at all."""
        self._armed = self.config.histograms

    def disarm(self) -> None:
        """Collect no more."""
        self._armed = self._inside = False

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:  # noqa: ARG002
        """Within a recorded pass, what runs without autograd counts as well: a checkpoint's first run."""
        self._inside = recording

    def layer_ran(
        self,
        index: int,
        module: torch.nn.Module,  # noqa: ARG002
        args: tuple[Any, ...],  # noqa: ARG002
        output: Any,
        *,
        recording: bool,
    ) -> None:
        """Count the first output of a layer."""
        if not self._armed or index >= _MOST_NAMES or not (recording or self._inside):
            return
        tensor = next(tensors(output), None)
        if tensor is not None and _torch.has_values(tensor):
            self._passes.add((index, counts(tensor.detach())))

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """The pass is over."""
        self._inside = False
        self._passes.end(recording=recording)

    def trained(self, turn: int) -> None:
        """The pass is trained on."""
        self._passes.trained(turn)

    def merge(self, frame: Frame) -> None:
        """Hand over the activations of the passes since the last optimizer step; calls of a layer add up."""
        calls: dict[tuple[int, torch.device], torch.Tensor] = {}
        for index, counted in self._passes.take():
            key = (index, counted.device)
            calls[key] = calls[key] + counted if key in calls else counted
        layers = self.patient.layers
        self._put(
            frame, "activations", [(layers[index].name, counted) for (index, _), counted in calls.items()]
        )

    def gradients(
        self,
        frame: Frame,
        optimizer: torch.optim.Optimizer | None,  # noqa: ARG002
        held: Sequence[int],
    ) -> None:
        """Count the gradients of the parameters that are about to be stepped."""
        if not (frame.sampled and self.config.histograms):
            return
        found = []
        for index in held[:_MOST_NAMES]:
            parameter = self.patient.parameters[index]()
            gradient = _local(parameter.grad) if parameter is not None else None
            if gradient is not None:
                found.append((self.patient.names[index], counts(gradient)))
        self._put(frame, "gradients", found)

    def _put(self, frame: Frame, what: str, found: list[tuple[str, torch.Tensor]]) -> None:
        """One tensor per device."""
        for device in {counted.device for _, counted in found}:
            here = [(name, counted) for name, counted in found if counted.device == device]
            slot = frame.defer(torch.stack([counted for _, counted in here]))
            frame.put(self.name, (what, [name for name, _ in here], slot))

    def forget(self) -> None:
        """The model changed: what was collected of it has old indices."""
        self._passes.forget()

    def detach(self) -> None:
        """Drop everything."""
        self._armed = False
        self._passes.forget()

    def coverage(self) -> str:
        """Whether histograms are wanted, and of how much."""
        if not self.config.histograms:
            return "off: WatchConfig(histograms=True) turns them on"
        most = max(len(self.patient.parameters), len(self.patient.layers))
        return "ok" if most <= _MOST_NAMES else f"first {_MOST_NAMES} parameters and layers"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """A record of its own; what was counted on several devices or by several optimizers adds up."""
        counted: dict[str, dict[str, Values]] = {}
        for what, names, slot in payloads:
            of = counted.setdefault(what, {})
            for name, row in zip(names, values[slot].reshape(-1, _WIDTH), strict=True):
                of[name] = of[name] + row if name in of else row
        data = {what: {name: histogram(row) for name, row in of.items()} for what, of in counted.items()}
        return {"histograms": Histogram(frame.number, round(frame.ended_s, 6), data)}


def _local(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """What of a gradient can be counted here: its local part, if it is dense, real and not empty."""
    if gradient is None:
        return None
    if hasattr(gradient, "to_local"):
        gradient = gradient.to_local()
    if gradient.layout is not torch.strided or not gradient.is_floating_point() or gradient.numel() == 0:
        return None
    return gradient.detach() if _torch.has_values(gradient) else None
