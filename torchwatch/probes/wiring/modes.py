"""In which mode the model was, in passes that were trained on and in those without autograd."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torchwatch.patient import Patient
from torchwatch.probes._passes import Passes

FEW_VALUES = 4
"""A batch norm needs at least so many values per channel."""

_MOST_PASSES = 64
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RUNNING = (*_NORMS, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Mode:
    """The mode of one pass: layers in evaluation mode that depend on it, batch norms with few values."""

    training: bool
    evaluating: list[int]
    few: dict[int, int] = field(default_factory=dict)


class Modes:
    """Reads flags of modules at the end of passes; shapes of batch norms' inputs as they run.

    ``idle``: nothing was seen since :meth:`take`.
    """

    def __init__(self) -> None:
        self._structure = -1
        self._sensitive: list[tuple[int, weakref.ref[nn.Module], bool]] = []
        self._few: dict[int, int] = {}
        self._passes: Passes[Mode] = Passes(_MOST_PASSES)
        self._dropout: bool | None = None
        self._orphans = False
        self.idle = True

    def layer_ran(self, index: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note a batch norm in training mode that has few values per channel to take its mean of."""
        if not isinstance(module, _NORMS) or not module.training:
            return
        given = args[0] if args else None
        if isinstance(given, torch.Tensor) and given.dim() > 1 and given.shape[1]:
            values = given.numel() // given.shape[1]
            if values < FEW_VALUES:
                self._few[index] = min(values, self._few.get(index, values))

    def model_ran(self, patient: Patient, *, recording: bool, sampled: bool) -> None:
        """A pass is over."""
        self.idle = False
        if recording and sampled:
            self._passes.add(self._mode(patient))
        elif not recording:
            active = [module.training for _, module, dropout in self._modules(patient) if dropout]
            if active:
                self._dropout = bool(self._dropout) or any(active)
        self._few = {}
        self._passes.end(recording=recording)

    def trained(self, turn: int) -> None:
        """A gradient arrived in a pass; in the one in progress where the model itself is never called."""
        self.idle = False
        self._orphans = self._orphans or turn == self._passes.turn
        self._passes.trained(turn)

    def take(self, patient: Patient) -> list[Mode]:
        """The passes that were trained on since the last call."""
        modes = self._passes.take()
        if not modes and self._orphans:
            modes = [self._mode(patient)]
            self._few = {}
        self._orphans, self.idle = False, True
        return modes

    def take_evaluation(self) -> bool | None:
        """Whether dropout was active in a pass without autograd since the last call; None: nothing seen."""
        taken, self._dropout = self._dropout, None
        return taken

    def forget(self) -> None:
        """Drop everything."""
        self._few, self._dropout, self._orphans = {}, None, False
        self._sensitive, self._structure = [], -1
        self._passes.forget()

    def _mode(self, patient: Patient) -> Mode:
        model = patient.model()
        evaluating = [index for index, module, _ in self._modules(patient) if not module.training]
        return Mode(model is not None and model.training, evaluating, dict(self._few))

    def _modules(self, patient: Patient) -> Iterator[tuple[int, nn.Module, bool]]:
        """Layers whose output depends on the mode, and whether they are dropout."""
        if self._structure != patient.structure:
            self._structure = patient.structure
            found = ((i, layer.module()) for i, layer in enumerate(patient.layers))
            self._sensitive = [
                (i, weakref.ref(m), isinstance(m, _DROPOUTS))
                for i, m in found
                if m is not None and _depends(m)
            ]
        for index, reference, dropout in self._sensitive:
            module = reference()
            if module is not None and not (dropout and not module.p):
                yield index, module, dropout


def _depends(module: nn.Module) -> bool:
    """Whether the module does something else in evaluation than in training."""
    if isinstance(module, _DROPOUTS):
        return True
    return isinstance(module, _RUNNING) and module.track_running_stats
