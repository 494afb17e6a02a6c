"""The loss and everything else that the host logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch

Logged = tuple[str, str, "torch.Tensor | float"]
SOURCES = ("log", "output", "module")
SHARE = "share"
"""Source of an output's loss that is only this pass's share of the step's."""


class LossProbe(Probe):
    """Logged values, averaged over the step; without a logged loss, the one that was seen.

    ``loss_source`` says where it came from: ``log`` (the host), ``output`` (the model's output has a
    ``loss``), ``module`` (the scalar output of one loss module). Two different loss modules in one step are
    not added up: their weights are the host's business, so the loss then counts as not seen.

    Outputs' losses that were divided by all items of the step (:data:`SHARE`) are added up. Where those of
    all ranks were counted, the sum is this rank's share.
    """

    name: ClassVar[str] = "loss"
    writes: ClassVar[tuple[str, ...]] = ("loss", "loss_source", "metrics")

    def take(self, frame: Frame, logged: list[Logged]) -> None:
        """Put logged values into the frame."""
        for name, source, value in logged:
            entry = frame.defer(value) if isinstance(value, torch.Tensor) else (float(value),)
            frame.put(self.name, (name, source, entry))

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """Means per name; the loss from the best source there is."""
        seen: dict[str, dict[str, list[float]]] = {}
        for name, source, entry in payloads:
            value = entry[0] if isinstance(entry, tuple) else float(np.mean(values[entry]))
            seen.setdefault(name, {}).setdefault(source, []).append(value)
        fields: dict[str, Any] = {}
        losses = seen.pop("loss", {})
        if SHARE in losses:
            losses["output"] = [sum(losses.pop(SHARE))]
        modules = [s for s in losses if s not in SOURCES]
        if len(modules) == 1:
            losses["module"] = losses.pop(modules[0])
        source = next((s for s in SOURCES if s in losses), None)
        if source is not None:
            fields |= {"loss": _mean(losses[source]), "loss_source": source}
        if seen:
            fields["metrics"] = {k: _mean([v for vs in by.values() for v in vs]) for k, by in seen.items()}
        return fields


def _mean(values: list[float]) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.mean(values))


def as_logged(values: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor | float], list[str]]:
    """Values that can be logged, flattened, and the names of those that cannot.

    Tensors are detached and cloned (of several elements, the mean is taken later); a mapping becomes one
    entry per key (``accuracy.cat``); numbers, NumPy scalars and booleans become floats.
    """
    usable: dict[str, torch.Tensor | float] = {}
    refused: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            inner, bad = as_logged({f"{name}.{key}": v for key, v in value.items()})
            usable |= inner
            refused += bad
            continue
        converted = _converted(value)
        if converted is None:
            refused.append(name)
        else:
            usable[name] = converted
    return usable, refused


def _converted(value: Any) -> torch.Tensor | float | None:
    if isinstance(value, torch.Tensor):
        if hasattr(value, "to_local"):
            value = value.to_local()
        if not _torch.has_values(value) or value.numel() == 0 or value.is_complex():
            return None
        return _torch.readable(value)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, (Real, np.number, np.bool_)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None
