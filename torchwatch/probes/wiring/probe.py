"""The probe that looks for silent mistakes; :mod:`torchwatch.probes.wiring` has the keys of its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.patient import Layer
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes._columns import read
from torchwatch.probes._slices import Moved
from torchwatch.probes.wiring.frozen import Frozen, changed
from torchwatch.probes.wiring.ledger import Ledger
from torchwatch.probes.wiring.modes import Mode, Modes
from torchwatch.probes.wiring.stale import StaleGradients
from torchwatch.schedule import Plan

_NEGLIGIBLE = 1e-3
"""A gradient of less than this share of the largest one may be too small to change a weight."""


@dataclass(slots=True, eq=False)
class _Seen:
    """Part of what was seen in a step, and the model whose indices those are."""

    ledger: Ledger
    layers: Sequence[Layer]
    modes: list[Mode] | None = None
    dropout: bool | None = None
    trainable: list[int] | None = None
    absent: list[int] | None = None
    frozen: list[Moved] | None = None


class WiringProbe(Probe):
    """Modes, gradients that are missing, zero or stale, parameters that should change and do not, or do.

    Watched on sampled steps, of which the first ten are all.
    """

    name: ClassVar[str] = "wiring"
    writes: ClassVar[tuple[str, ...]] = ("stale_gradients", "wiring")

    def __init__(self) -> None:
        self._armed = False
        self._stale = StaleGradients()
        self._modes = Modes()
        self._frozen = Frozen()
        self._ledger = Ledger()

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Watch the next step."""
        self._armed = True

    def disarm(self) -> None:
        """Stop watching."""
        self._armed = False
        self._stale.forget()

    def forget(self) -> None:
        """The model changed: what was noted of it has old indices."""
        self._stale.forget()
        self._modes.forget()
        self._frozen.forget()

    def layer_ran(
        self,
        index: int,
        module: torch.nn.Module,
        args: tuple[Any, ...],
        output: Any,  # noqa: ARG002
        *,
        recording: bool,  # noqa: ARG002
    ) -> None:
        """Look at what batch norms are given."""
        self._modes.layer_ran(index, module, args)

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """Look at the mode."""
        self._modes.model_ran(self.patient, recording=recording, sampled=self._armed)

    def trained(self, turn: int) -> None:
        """The pass is trained on."""
        self._modes.trained(turn)

    def gradient_arrives(self, layer: int) -> None:
        """The gradient of a layer's output arrived: its parameters' come next."""
        self._stale.arrive(self.patient, layer)

    def closing(self, frame: Frame) -> None:
        """The record closes: an evaluation after its step belongs to it."""
        dropout = self._modes.take_evaluation()
        if dropout is not None:
            frame.put(self.name, _Seen(self._ledger, self.patient.layers, dropout=dropout))

    def merge(self, frame: Frame) -> None:
        """Hand over the modes of the passes that were trained on, and of an evaluation between records."""
        if self._modes.idle:
            return
        self.closing(frame)
        modes = self._modes.take(self.patient)
        if modes:
            frame.put(self.name, _Seen(self._ledger, self.patient.layers, modes=modes))

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:  # noqa: ARG002
        """The step comes: which gradients are stale, and which are missing."""
        stale = self._stale.take(held)
        if stale is not None:
            frame.put(self.name, stale)
        if not frame.sampled:
            return
        trainable, absent = [], []
        for index in (*held, *self.patient.unowned()):
            parameter = self.patient.parameters[index]()
            if parameter is not None and parameter.requires_grad:
                trainable.append(index)
                if parameter.grad is None:
                    absent.append(index)
        seen = _Seen(self._ledger, self.patient.layers, trainable=trainable, absent=absent)
        frame.put(self.name, seen)

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Read what is frozen."""
        if frame.sampled:
            self._frozen.before(self.patient, held)

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """Read it again, and note the gradients if the next step is watched."""
        if frame.sampled:
            moved = self._frozen.after(frame)
            frame.put(self.name, _Seen(self._ledger, self.patient.layers, frozen=moved))
        if self._armed:
            self._stale.leave(self.patient, held)

    def detach(self) -> None:
        """Drop everything."""
        self.disarm()
        self.forget()

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """True when any optimizer of the step used stale gradients."""
        stale = [seen for seen in payloads if isinstance(seen, bool)]
        return {"stale_gradients": any(stale)} if stale else {}

    @staticmethod
    def complete(
        fields: dict[str, Any], payloads: list[Any], values: list[Values], frame: Frame
    ) -> dict[str, Any]:
        """The map, if it changed."""
        seen = [part for part in payloads if isinstance(part, _Seen)]
        if not seen or frame.scalars_only:
            return {}
        ledger = seen[-1].ledger
        ledger.is_of(seen[-1].layers)
        _take_modes(ledger, [mode for part in seen for mode in part.modes or ()])
        dropout = [part.dropout for part in seen if part.dropout is not None]
        ledger.say("evaluation_dropout", any(dropout) if dropout else None)
        if frame.sampled:
            _take_gradients(ledger, fields, seen, frame)
            moved = [m for part in seen for m in part.frozen or ()]
            frozen = sorted(i for m in moved for i in changed(m, read(m.moved, values)))
            ledger.say("frozen_changed", frozen or None)
        state = ledger.changed()
        return {} if state is None else {"wiring": state}


def _take_modes(ledger: Ledger, modes: list[Mode]) -> None:
    if not modes:
        return
    few: dict[int, int] = {}
    for mode in modes:
        for index, values in mode.few.items():
            few[index] = min(values, few.get(index, values))
    ledger.say("training", modes[-1].training)
    ledger.say("eval_layers", sorted({i for mode in modes for i in mode.evaluating}) or None)
    ledger.say("small_batch_norms", sorted(few) or None)
    ledger.say("small_batch_values", [few[i] for i in sorted(few)] or None)


def _take_gradients(ledger: Ledger, fields: dict[str, Any], seen: list[_Seen], frame: Frame) -> None:
    trainable: set[int] = set()
    absent: set[int] = set()
    for part in seen:  # in order: what no optimizer was known to hold may be the next one's
        trainable.update(part.trainable or ())
        absent = (absent - set(part.trainable or ())) | set(part.absent or ())
    ledger.observe("no_gradient", frame.number, trainable, absent)
    norms, ratios = fields.get("grad_norms"), fields.get("update_ratios")
    if norms is None:
        return
    measured = [i for i in trainable if not np.isnan(norms[i])]
    zero = {i for i in measured if norms[i] == 0}
    ledger.observe("zero_gradient", frame.number, trainable, zero)
    if ratios is None or fields.get("skipped"):
        return
    exact = _read_in_full(frame)
    least = _NEGLIGIBLE * float(norms[measured].max()) if measured else 0.0
    moving = [i for i in measured if i in exact and i not in zero and norms[i] >= least]
    ledger.observe("unchanged", frame.number, moving, {i for i in moving if ratios[i] == 0})


def _read_in_full(frame: Frame) -> set[int]:
    """Parameters of which no element could change unseen."""
    parts = [m for m in frame.payloads.get("updates", ()) if isinstance(m, Moved)]
    return {int(i) for m in parts for i in m.indices[m.weights == 1]}
