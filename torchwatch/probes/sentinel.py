"""The sentinel: the first NaN or infinity of a step, named.

On sampled steps the statistics of the layers' outputs tell where it came in. On the others, while the plan
has the sentinel on, every output is summed: one kernel and a few microseconds per call, a device scalar that
only the recorder looks at. A sum that is not finite proves nothing by itself (large finite values overflow,
masked scores are −∞ on purpose): nothing is named as long as loss, gradients and weights are finite, nor what
was not finite while they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.patient import Layer
from torchwatch.probe import Frame, Probe, Slot, Values
from torchwatch.probes._origin import (
    ROOT,
    Evidence,
    Key,
    Memory,
    bad_entries,
    counted_entries,
    in_call_order,
)
from torchwatch.probes._passes import Passes
from torchwatch.probes.activations import tensors
from torchwatch.probes.inputs import named_tensors
from torchwatch.records import Column, is_missing
from torchwatch.schedule import Plan

_MOST_CALLS = 8192
_MOST_PASSES = 64
_MOST_INPUTS = 8


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums of outputs in the order of the calls, of one device."""

    keys: tuple[Key, ...]
    sums: torch.Tensor


@dataclass(slots=True, eq=False)
class _Seen:
    """What was seen since the optimizer step before, and whose indices those are.

    ``summed``: layers were summed; ``complete``: no call and no pass with autograd is missing.
    """

    memory: Memory
    layers: Sequence[Layer]
    names: Sequence[str]
    owners: Sequence[int]
    sums: list[tuple[tuple[Key, ...], Slot]]
    summed: bool
    complete: bool


class SentinelProbe(Probe):
    """Names where the first non-finite value of a step appeared: see :class:`~torchwatch.records.Step`.

    Sums are accumulated in float32 at least. Only passes that are trained on count.
    """

    name: ClassVar[str] = "sentinel"
    writes: ClassVar[tuple[str, ...]] = ("first_nonfinite",)

    def __init__(self) -> None:
        self._memory = Memory()
        self._looking = self._summing = self._trains = self._overrun = False
        self._seen_any = False
        self._recorded = 0
        self._nothing = _Seen(self._memory, (), (), (), [], summed=False, complete=True)
        self._open: list[tuple[Key, torch.Tensor]] = []
        self._offered: list[tuple[Key, torch.Tensor]] = []
        self._passes: Passes[list[_Sums]] = Passes(_MOST_PASSES)

    def next_step(self, plan: Plan) -> None:
        """Know what is due."""
        self._summing = plan.sentinel
        self._looking = plan.sentinel or plan.sampled

    def layer_ran_light(self, index: int, output: Any) -> None:
        """Sum what a layer puts out."""
        self._seen_any = True
        if type(output) is torch.Tensor:
            self._sum(index, output)
            return
        for tensor in tensors(output):
            self._sum(index, tensor)

    def _sum(self, key: Key, tensor: torch.Tensor) -> None:
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_meta:
            return
        if not tensor.is_floating_point():
            if not tensor.is_complex():
                return
            tensor = torch.view_as_real(tensor.resolve_conj())
        if len(self._open) >= _MOST_CALLS:
            self._overrun = True
            return
        self._trains = self._trains or tensor.requires_grad
        wide = torch.float32 if tensor.dtype is torch.float16 else None
        self._open.append((key, tensor.sum(dtype=wide)))

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:
        """The pass is over. What went in stands before everything else, what came out after it."""
        self._seen_any = True
        if self._looking and recording:
            layers, self._open = self._open, []
            for place, (name, tensor) in enumerate(named_tensors(args)):
                if place == _MOST_INPUTS:
                    break
                self._sum(name, tensor)
            self._open += layers
            for tensor in tensors(output):
                self._sum(ROOT, tensor)
            if self._open:
                self._recorded += 1
                self._passes.add(_packed(self._open))
        self._open, self._trains = [], False
        self._passes.end(recording=recording)

    def offer(self, batch: Any) -> None:
        """A batch of the host's loader, of a step in which no forward pass was seen: sum it.

        Its tensors are called ``batch.0``, ``batch.image`` and so on: how they reach the model is not known.
        """
        layers, self._open = self._open, []
        for place, (name, tensor) in enumerate(named_tensors(batch)):
            if place == _MOST_INPUTS:
                break
            self._sum(f"batch.{name}" if name else "batch", tensor)
        self._offered, self._open = self._open, layers
        self._seen_any = self._seen_any or bool(self._offered)

    def trained(self, turn: int) -> None:
        """The pass is trained on."""
        self._passes.trained(turn)

    def merge(self, frame: Frame) -> None:
        """Hand over the sums of what was trained on since the last optimizer step, passes added up."""
        if frame.plan.plain:
            return
        of = self.patient
        if not self._seen_any:
            if self._nothing.layers is not of.layers:
                self._nothing = _Seen(
                    self._memory, of.layers, of.names, of.owners, [], summed=False, complete=True
                )
            frame.put(self.name, self._nothing)
            return
        passes = self._passes.take()
        complete = len(passes) == self._recorded and not self._overrun
        if self._open and self._trains:  # the model's parts were called, not the model
            passes.append(_packed(self._open))
        summed = bool(passes) and self._summing
        if self._offered:
            passes.append(_packed(self._offered))
        self._open, self._offered, self._trains = [], [], False
        self._recorded, self._overrun, self._seen_any = 0, False, False
        slots = [(keys, frame.defer(total)) for keys, total in _folded(passes).items()]
        frame.put(self.name, _Seen(self._memory, of.layers, of.names, of.owners, slots, summed, complete))

    def forget(self) -> None:
        """The model changed: what was summed has old indices."""
        self._recorded = 0
        self._open, self._offered, self._trains = [], [], False
        self._passes.forget()

    def detach(self) -> None:
        """Drop everything."""
        self.forget()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """Nothing yet: it takes the other probes' fields."""
        return {}

    @staticmethod
    def complete(
        fields: dict[str, Any], payloads: list[Any], values: list[Values], frame: Frame
    ) -> dict[str, Any]:
        """The origin, where something is not finite."""
        last: _Seen = payloads[-1]
        memory = last.memory
        memory.is_of(last.layers)
        outputs = _outputs(fields, payloads, values)
        if not _troubled(fields):
            memory.usual.update(outputs)
            memory.parameters = set()
            return {}
        origin = _evidence(fields, payloads, outputs, sampled=frame.sampled).origin()
        return {} if origin is None else {"first_nonfinite": origin}


def _troubled(fields: dict[str, Any]) -> bool:
    """Whether loss, gradients or weights of the step are not finite."""
    known = (fields.get("loss"), fields.get("grad_norm"), fields.get("update_ratio"))
    if not all(v is None or math.isfinite(v) for v in known):
        return True
    return bool(counted_entries(fields.get("weight_nonfinite")))


def _evidence(
    fields: dict[str, Any], payloads: list[_Seen], outputs: list[Key], *, sampled: bool
) -> Evidence:
    """What the step shows; the memory learns which parameters it left behind."""
    last, memory = payloads[-1], payloads[-1].memory
    ratios, weights = fields.get("update_ratios"), fields.get("weight_nonfinite")
    norms, loss = fields.get("grad_norms"), fields.get("loss")
    before = memory.parameters | _bad_before(ratios)
    after = sorted({*bad_entries(ratios), *counted_entries(weights)})
    if ratios is not None or weights is not None:
        memory.parameters = set(after)
    gradients = bad_entries(norms)
    fine = math.isfinite(loss) if loss is not None else norms is not None
    if fine and not gradients:
        memory.harmless |= before
    return Evidence(
        last.layers,
        last.names,
        last.owners,
        loss,
        [key for key in outputs if key not in memory.usual],
        all(seen.complete for seen in payloads)
        and ("nonfinite" in (fields.get("activations") or {}) or any(seen.summed for seen in payloads)),
        "statistics" if sampled else "sentinel",
        gradients,
        norms is not None and len(gradients) == int((~is_missing(norms)).sum()),
        before,
        after,
        memory.harmless,
    )


def _folded(passes: list[list[_Sums]]) -> dict[tuple[Key, ...], torch.Tensor]:
    """Passes of the same calls added up."""
    folded: dict[tuple[Key, ...], torch.Tensor] = {}
    for sums in (s for of_pass in passes for s in of_pass):
        known = folded.setdefault(sums.keys, sums.sums)
        if known is not sums.sums:
            known.add_(sums.sums)
    return folded


def _packed(calls: list[tuple[Key, torch.Tensor]]) -> list[_Sums]:
    """The sums of a pass, one tensor per device."""
    devices: dict[torch.device, list[tuple[Key, torch.Tensor]]] = {}
    for call in calls:
        devices.setdefault(call[1].device, []).append(call)
    return [_Sums(tuple(k for k, _ in of), torch.stack([s for _, s in of])) for of in devices.values()]


def _outputs(fields: dict[str, Any], payloads: list[_Seen], values: list[Values]) -> list[Key]:
    """Inputs and layers that held something non-finite, each once, in the order of the calls."""
    summed: list[Key] = []
    for keys, slot in (entry for seen in payloads for entry in seen.sums):
        sums = values[slot]
        if sums.size == len(keys) and not np.isfinite(sums).all():
            summed += [keys[place] for place in np.flatnonzero(~np.isfinite(sums))]
    column: Column | None = (fields.get("activations") or {}).get("nonfinite")
    counted = in_call_order(payloads[-1].layers, counted_entries(column))
    given = [key for key in summed if isinstance(key, str)]
    rest: list[Key] = [key for key in summed if not isinstance(key, str) and key != ROOT]
    root: list[Key] = [ROOT] if ROOT in summed else []
    return list(dict.fromkeys([*given, *rest, *counted, *root]))


def _bad_before(ratios: Column | None) -> set[int]:
    """Parameters that were not finite before the step: their ratio is NaN; an infinite one the step made."""
    return {i for i in bad_entries(ratios) if ratios is not None and np.isnan(ratios[i])}
