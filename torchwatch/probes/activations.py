"""Outputs of layers on sampled steps: level, spread, sparsity, dead units, non-finite values, geometry."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from torchwatch.patient import Layer
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes._kernels import Kernels
from torchwatch.probes._layer_columns import (
    Gradients,
    Grams,
    TakenCalls,
    UnitShares,
    by_place,
    columns,
    handed_over,
    unscaled,
)
from torchwatch.probes._moments import Moments, Units
from torchwatch.probes._rare import gram
from torchwatch.probes._readable import batch_size as batch_size  # noqa: PLC0414 - imported from here
from torchwatch.probes._readable import first_tensor
from torchwatch.probes._readable import tensors as tensors  # noqa: PLC0414 - the same
from torchwatch.probes._recent import RecentUnits
from torchwatch.probes._roles import Role, role_of, unit_axis
from torchwatch.probes._units import Call, UnitWindows
from torchwatch.schedule import Plan

STATISTICS: Mapping[str, str] = {
    "mean": "mean of all entries of the output (its own unit, as are std, rms and absmax)",
    "std": "standard deviation of all entries",
    "rms": "root of the mean square of all entries",
    "zero_fraction": "share of entries that are exactly 0 (0 to 1)",
    "dead_fraction": "share of units that stayed at 0 (at most 1e-6) in each of the last dead_window_samples "
    "samples (0 to 1). Units are channels of images, else features; those of the output of activation "
    "modules, and of the input of Linear and Conv layers, which shows functional activations too",
    "batch_std": "standard deviation across the samples of a batch, pooled over features, over the rms "
    "(a ratio; 0: every sample gets the same)",
    "absmax": "largest magnitude",
    "nonfinite": "number of NaN and infinite entries",
    "saturated_fraction": "share of the entries of a Sigmoid, Tanh, Hardsigmoid, Hardtanh or Softsign module "
    "within 0.01 of a bound (0 to 1)",
    "dormant_fraction": "share of units whose mean magnitude is at most 0.025 of the layer's mean, over the "
    "last one to two dead_window_samples (0 to 1; Sokar et al. 2023). Units as in dead_fraction",
    "headroom": "absmax over the largest number of the output's type, where that is of 16 bits or less "
    "(0 to 1; a mask filled with the smallest number has 1)",
    "grad_rms": "root mean square of the gradient that arrived at the output, with the GradScaler's scale "
    "taken out (loss per unit of the output)",
    "cosine": "mean correlation of the outputs for two samples (−1 to 1), on rare steps, of up to 64 samples",
    "effective_rank": "exponential of the entropy of the normalised singular values of the matrix of samples "
    "by features (1 to the smaller of both; Roy & Vetterli 2007), as cosine",
    "cka": "debiased linear CKA with the next layer in call order that has as many samples (up to 1; "
    "Kornblith et al. 2019, Nguyen et al. 2021), as cosine",
}
"""Every statistic of ``Step.activations``: what it is, and in which unit or range.

All calls of a layer in one step are pooled; a tuple or dict is read at its first tensor. The first eight are
columns on every sampled step, the others where they were measured. Cosine, effective rank and CKA look at
each layer's first call, at evenly spaced samples and up to 2,048 evenly spaced features.
"""

_REMEMBERED = 8


@dataclass(slots=True, eq=False)
class Seen:
    """Statistics of one call of one layer, not yet known to belong to a training pass."""

    layer: int
    count: int
    samples: int
    limit: float
    moments: Moments
    units: Units | None
    gram: torch.Tensor | None
    turn: int
    number: int
    recording: bool
    taken: bool = False


class ActivationProbe(Probe):
    """Statistics of layer outputs, only of passes that were trained on; :data:`STATISTICS` lists them.

    A call's statistics are provisional until a gradient arrives at its output: evaluation, rollouts and
    discarded losses never count, checkpointed passes count once. Outputs without a gradient path (a frozen
    front, the first run of a reentrant checkpoint) count when a later output of the same pass does.
    """

    name: ClassVar[str] = "activations"
    writes: ClassVar[tuple[str, ...]] = ("activations",)

    def __init__(self) -> None:
        self._armed = self._rare = False
        self._turn = self._number = self._called = 0
        self._channels_first: bool | None = None
        self._gradless: list[Seen] = []
        self._taken: list[Seen] = []
        self._gradients: list[tuple[int, int, float | torch.Tensor]] = []
        self._described: set[int] = set()
        self._roles: dict[int, Role] = {}
        self._recent = RecentUnits()
        self._windows: UnitWindows | None = None
        self._version = -1
        self._kernels = Kernels()

    def arm(self, plan: Plan) -> None:
        """Collect from now on."""
        self._armed, self._rare = True, plan.rare
        self._described = set()

    def disarm(self) -> None:
        """Stop collecting; what was not committed is forgotten."""
        self._armed = self._rare = False
        self._gradless = []
        self._recent.clear()

    def observe(
        self, index: int, module: nn.Module, args: Any, output: Any, *, recording: bool
    ) -> tuple[torch.Tensor, Seen] | None:
        """Take the statistics of one call; returns the output whose gradient must :meth:`commit` them.

        ``recording``: whether autograd was recording when the layer ran. None: nothing to wait for.
        """
        tensor = first_tensor(output)
        if tensor is None:
            return None
        self._look_again()
        layer = self.patient.layers[index]
        if layer.order is None:
            self._note_first_call(layer, args, output)
        self._number += 1
        moments, units = self._measured(index, module, layer, args, tensor)
        seen = Seen(
            layer=index,
            count=tensor.numel(),
            samples=tensor.shape[0] if tensor.dim() else 1,
            limit=_largest_number(tensor.dtype),
            moments=moments,
            units=units,
            gram=self._gram(index, tensor),
            turn=self._turn,
            number=self._number,
            recording=recording,
        )
        if tensor.requires_grad and tensor.grad_fn is not None:
            return tensor, seen
        self._gradless.append(seen)
        return None

    def _look_again(self) -> None:
        """After a change of the model nothing that was known of its layers holds."""
        if self._version != self.patient.structure:
            self._version = self.patient.structure
            self._windows, self._roles = None, {}

    def _measured(
        self, index: int, module: nn.Module, layer: Layer, args: Any, tensor: torch.Tensor
    ) -> tuple[Moments, Units | None]:
        """Moments of the output; units of an activation's output, or of the input of a Linear or Conv."""
        role = self._roles.get(index)
        if role is None:
            role = self._roles[index] = role_of(module)
        if role.channels_first is not None:
            self._channels_first = role.channels_first
        if role.activates:
            axis = unit_axis(tensor, channels_first=self._channels_first)
            moments = self._kernels.moments(
                tensor.detach(), axis, bounds=role.bounds, nonnegative=role.nonnegative
            )
            if axis is not None and moments.units is not None:
                self._recent.add(tensor, axis, moments.units)
            return moments, moments.units
        moments = self._kernels.moments(tensor.detach(), None)
        source = first_tensor(args) if layer.feeds_units else None
        return moments, None if source is None else self._units_of(source, role)

    def _units_of(self, source: torch.Tensor, role: Role) -> Units | None:
        """Units of a layer's input; often it is the output of an activation that was just looked at."""
        axis = unit_axis(source, channels_first=role.channels_first)
        if axis is None:
            return None
        units = self._recent.get(source, axis)
        if units is None:
            units = self._kernels.units(source.detach(), axis)
            self._recent.add(source, axis, units)
        return units

    def _gram(self, index: int, tensor: torch.Tensor) -> torch.Tensor | None:
        """On rare steps, of the first call of a layer in a pass."""
        if not self._rare or index in self._described:
            return None
        self._described.add(index)
        return gram(tensor.detach())

    def _note_first_call(self, layer: Layer, args: Any, output: Any) -> None:
        layer.order = self._called
        layer.inputs = [list(t.shape) for t in tensors(args)]
        layer.outputs = [list(t.shape) for t in tensors(output)]
        self._called += 1

    def forget(self) -> None:
        """The model changed: what was collected of it has old indices."""
        self._taken, self._gradless, self._gradients = [], [], []

    def end_of_pass(self, *, recording: bool) -> int:
        """The model's own forward ended: what follows belongs to another pass. Returns the pass that ended.

        ``recording``: whether autograd was recording; then even what ran without (a reentrant checkpoint) may
        be trained on, else nothing of the pass is.
        """
        ended, self._turn = self._turn, self._turn + 1
        self._channels_first = None
        self._described = set()
        self._recent.clear()
        kept = [s for s in self._gradless if s.turn >= ended - 1 and (recording or s.turn != ended)]
        for seen in kept:
            seen.recording = seen.recording or seen.turn == ended
        self._gradless = kept
        return ended

    def commit(self, seen: Seen) -> None:
        """The gradient of a call's output arrived: its pass is trained on."""
        if seen.taken or not self._armed:
            return
        self._take(seen)
        self.commit_pass(seen.turn)

    def commit_pass(self, turn: int) -> None:
        """A gradient arrived somewhere in the pass: take what has no gradient path of its own."""
        if self._gradless:
            for other in [s for s in self._gradless if s.turn == turn and s.recording]:
                self._gradless.remove(other)
                self._take(other)

    def _take(self, seen: Seen) -> None:
        seen.taken = True
        self._taken.append(seen)

    def layer_gradient(self, index: int, gradient: torch.Tensor) -> None:
        """Reduce the gradient of an output at once."""
        if gradient.layout is torch.strided and gradient.is_floating_point() and gradient.numel():
            square = self._kernels.square(gradient.detach())
            self._gradients.append((index, gradient.numel(), square))

    def merge(self, frame: Frame) -> None:
        """Hand over what was committed since the last optimizer step."""
        taken, self._taken = [s for s in self._taken if s.layer < len(self.patient.layers)], []
        gradients, self._gradients = self._gradients, []
        for same in by_place(taken, lambda seen: seen.moments.vector):
            calls = [(s.layer, s.count, s.samples, s.limit) for s in same]
            frame.put(self.name, TakenCalls(calls, handed_over(frame, [s.moments.vector for s in same])))
        for arrived in by_place(gradients, lambda gradient: gradient[2]):
            entries = [(layer, count) for layer, count, _ in arrived]
            squares = handed_over(frame, [square for _, _, square in arrived])
            frame.put(self.name, Gradients(entries, squares))
        self._put_units(frame, taken)
        self._put_grams(frame, taken)

    def _put_units(self, frame: Frame, taken: list[Seen]) -> None:
        calls = [Call(s.layer, s.samples, *s.units) for s in taken if s.units is not None]
        if not calls:
            return
        if self._windows is None:
            self._windows = UnitWindows(max(1, self.config.dead_window_samples))
        for shares in self._windows.update(calls):
            frame.put(self.name, UnitShares(shares.keys, frame.defer(shares.values)))

    def _put_grams(self, frame: Frame, taken: list[Seen]) -> None:
        """Those of the first pass that was trained on, in the order of the calls."""
        having = sorted((s for s in taken if s.gram is not None), key=lambda s: s.number)
        first = [s for s in having if s.turn == having[0].turn]
        if first:
            slots = [frame.defer(s.gram) for s in first if s.gram is not None]
            frame.put(self.name, Grams([(s.layer, s.samples) for s in first], slots))

    def detach(self) -> None:
        """Drop everything."""
        self.disarm()
        self._taken, self._gradients, self._windows = [], [], None
        self._kernels = Kernels()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Columns per layer."""
        return {"activations": columns(payloads, values, frame.widths[1])}

    @staticmethod
    def complete(
        fields: dict[str, Any],
        payloads: list[Any],  # noqa: ARG004
        values: list[Values],  # noqa: ARG004
        frame: Frame,  # noqa: ARG004
    ) -> dict[str, Any]:
        """Take the scale of the loss, which gradients of outputs carry, out of them."""
        found = fields.get("activations")
        return {"activations": unscaled(found, fields.get("grad_scale"))} if found else {}


@functools.cache
def _largest_number(dtype: torch.dtype) -> float:
    """Of a type of 16 bits or less, else NaN."""
    return torch.finfo(dtype).max if dtype.itemsize < 4 else math.nan
