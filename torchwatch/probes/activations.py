"""Outputs of layers on sampled steps: level, spread, sparsity, dead units, non-finite values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from torchwatch.patient import Layer
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes._statistics import peaks, pooled, summary
from torchwatch.records import missing_column
from torchwatch.schedule import Plan

STATISTICS = ("mean", "std", "rms", "zero_fraction", "dead_fraction", "batch_std", "absmax", "nonfinite")
SILENT = 1e-6
"""A unit whose |activation| never exceeds this is silent."""

_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Threshold,
    nn.Softshrink, nn.Hardshrink, nn.Tanhshrink, nn.LogSigmoid, nn.GLU,
)  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MOST_TENSORS = 16


@dataclass(slots=True, eq=False)
class Seen:
    """Statistics of one call of one layer, not yet known to belong to a training pass."""

    layer: int
    numel: int
    batch: int
    statistics: torch.Tensor
    peaks: torch.Tensor | None
    turn: int
    recording: bool
    taken: bool = False


@dataclass(slots=True, eq=False)
class _Window:
    """Per unit, the number of samples seen when it was last active; ``seen`` counts all samples."""

    seen: int
    active_at: torch.Tensor


class ActivationProbe(Probe):
    """Statistics of layer outputs, only of passes that were trained on.

    A call's statistics are provisional until a gradient arrives at its output: evaluation, rollouts and
    discarded losses never count, checkpointed passes count once. Outputs without a gradient path (a frozen
    front, the first run of a reentrant checkpoint) count when a later output of the same pass does.
    """

    name: ClassVar[str] = "activations"
    writes: ClassVar[tuple[str, ...]] = ("activations",)

    def __init__(self) -> None:
        self._armed = False
        self._turn = 0
        self._called = 0
        self._spatial = False
        self._gradless: list[Seen] = []
        self._taken: list[Seen] = []
        self._windows: dict[int, _Window] = {}
        self._version = -1

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Collect from now on."""
        self._armed = True

    def disarm(self) -> None:
        """Stop collecting; what was not committed is forgotten."""
        self._armed = False
        self._gradless = []

    def observe(
        self, index: int, module: nn.Module, args: Any, output: Any, *, recording: bool
    ) -> tuple[torch.Tensor, Seen] | None:
        """Take the statistics of one call; returns the output whose gradient must :meth:`commit` them.

        ``recording``: whether autograd was recording when the layer ran. None: nothing to wait for.
        """
        tensor = next(tensors(output), None)
        if tensor is None:
            return None
        self._note_first_call(self.patient.layers[index], args, output)
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear)):
            self._spatial = isinstance(module, _CONVOLUTIONS)
        units = self._units(index, module, args, tensor)
        batch = tensor.shape[0] if tensor.dim() else 1
        numbers = summary(tensor.detach())
        seen = Seen(index, tensor.numel(), batch, numbers, units, self._turn, recording)
        if tensor.requires_grad and tensor.grad_fn is not None:
            return tensor, seen
        self._gradless.append(seen)
        return None

    def _units(self, index: int, module: nn.Module, args: Any, tensor: torch.Tensor) -> torch.Tensor | None:
        """Peaks of the output units of an activation module, of the input units of a Linear or Conv."""
        if isinstance(module, _ACTIVATIONS):
            return peaks(tensor.detach(), channels_first=self._spatial)
        source = next(tensors(args), None) if self.patient.layers[index].feeds_units else None
        if source is None:
            return None
        return peaks(source.detach(), channels_first=not isinstance(module, nn.Linear))

    def _note_first_call(self, layer: Layer, args: Any, output: Any) -> None:
        if layer.order is None:
            layer.order = self._called
            layer.inputs = [list(t.shape) for t in tensors(args)]
            layer.outputs = [list(t.shape) for t in tensors(output)]
            self._called += 1

    def forget(self) -> None:
        """The model changed: what was collected of it has old indices."""
        self._taken, self._gradless = [], []

    def end_of_pass(self, *, recording: bool) -> int:
        """The model's own forward ended: what follows belongs to another pass. Returns the pass that ended.

        ``recording``: whether autograd was recording; then even what ran without (a reentrant checkpoint) may
        be trained on, else nothing of the pass is.
        """
        ended, self._turn = self._turn, self._turn + 1
        self._spatial = False
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
        for other in [s for s in self._gradless if s.turn == turn and s.recording]:
            self._gradless.remove(other)
            self._take(other)

    def _take(self, seen: Seen) -> None:
        seen.taken = True
        if self._version != self.patient.structure:
            self._version = self.patient.structure
            self._windows = {}
        self._taken.append(seen)
        if seen.peaks is None:
            return
        window = self._windows.get(seen.layer)
        if window is None or window.active_at.shape != seen.peaks.shape:
            window = self._windows[seen.layer] = _Window(0, torch.zeros_like(seen.peaks, dtype=torch.int64))
        window.seen += seen.batch
        # NaN is not silence: only a peak that was seen to be small leaves the unit where it was.
        window.active_at.masked_fill_(~(seen.peaks <= SILENT), window.seen)

    def merge(self, frame: Frame) -> None:
        """Hand over what was committed since the last optimizer step, with the dead fraction per layer."""
        taken, self._taken = self._taken, []
        for seen in taken:
            if seen.layer < len(self.patient.layers):
                frame.put(self.name, (seen.layer, seen.numel, seen.batch, frame.defer(seen.statistics)))
        for layer in {s.layer for s in taken if s.peaks is not None}:
            window = self._windows.get(layer)
            if window is not None and window.seen >= self.config.dead_window_samples:
                silent = window.active_at <= window.seen - self.config.dead_window_samples
                frame.put(self.name, (layer, None, None, frame.defer(silent.float().mean())))

    def detach(self) -> None:
        """Drop everything."""
        self.disarm()
        self._taken, self._windows = [], {}

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Columns per layer; several calls of a layer in one step are pooled."""
        width = frame.widths[1]
        columns = {name: missing_column(width) for name in STATISTICS}
        calls: dict[int, list[tuple[int, int, Values]]] = {}
        for layer, numel, batch, slot in payloads:
            if numel is None:
                columns["dead_fraction"][layer] = values[slot][0]
            else:
                calls.setdefault(layer, []).append((numel, batch, values[slot]))
        with np.errstate(invalid="ignore", over="ignore"):
            for layer, seen in calls.items():
                for name, value in pooled(seen).items():
                    columns[name][layer] = np.float32(value)
        return {"activations": columns}


def tensors(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Readable tensors in a value, first ones first: bounded, and generators are never iterated."""
    yield from itertools.islice(_walk(value, depth), _MOST_TENSORS)


def _walk(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if readable_output(value):
            yield value
        return
    if depth == 0:
        return
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, f.name) for f in dataclasses.fields(value))
    for item in inner:
        yield from _walk(item, depth - 1)


def readable_output(tensor: torch.Tensor) -> bool:
    """Whether statistics of the tensor can be taken: real floating point, plain, local, not empty."""
    return (
        tensor.layout is torch.strided
        and tensor.is_floating_point()
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
        and not hasattr(tensor, "to_local")
        and tensor.numel() > 0
        and not (tensor.requires_grad and tensor.is_leaf)
    )


def batch_size(args: Any) -> int | None:
    """Samples in a call of the model: the first axis of its first tensor, of any type."""
    stack = [args]
    for _ in range(_MOST_TENSORS):
        if not stack:
            return None
        value = stack.pop(0)
        if isinstance(value, torch.Tensor):
            if value.dim() > 0:
                return int(value.shape[0])
        elif isinstance(value, Mapping):
            stack[:0] = list(value.values())
        elif isinstance(value, (list, tuple)):
            stack[:0] = list(value)
    return None
