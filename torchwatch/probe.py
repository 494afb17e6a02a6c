"""What a probe is: it measures one thing in the training thread and puts it into the step's frame.

A probe declares which fields of :class:`~torchwatch.records.Step` it ``writes`` and implements some of the
moments below. In the training thread it only enqueues device work and stores the resulting tensors with
:meth:`Frame.defer`; reading them (``decode``) happens in the recorder thread. It never calls ``.item()``,
never synchronises, never draws random numbers, and never keeps a tensor of the host.

Longer than a file should be: frame, block and probe are all that the training thread and the recorder share.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.records import Record
from torchwatch.schedule import Plan, unmeasured
from torchwatch.transfer import Copy, Transfers

Slot = int
Values = npt.NDArray[np.float64]
_NUMPY = (torch.float32, torch.float64)


class Frame:
    """Everything measured in one step, as device tensors, until the recorder reads it.

    Times are seconds since the start of the run. ``held`` are the indices of the parameters stepped so far.
    ``plan`` says what is due; ``gradients``, ``sampled`` and ``rare`` are its parts. ``urgent``: something is
    wrong with the step, which was looked at out of turn; it is told at once and says nothing of usual costs.
    """

    __slots__ = (
        "_copies", "_tensors", "ended_s", "epoch", "fields", "foreign", "held", "lost", "number", "payloads",
        "plan", "scalars_only", "started_s", "urgent", "wait_s", "watch_s", "widths",
    )  # fmt: skip

    def __init__(self, plan: Plan, epoch: int | None = None) -> None:
        self.plan = plan
        self.number = plan.number
        self.scalars_only = False
        self.epoch = epoch
        self.started_s: float | None = None
        self.ended_s = 0.0
        self.wait_s: float | None = None
        self.watch_s = 0.0
        self.foreign = self.lost = self.urgent = False
        self.held: set[int] = set()
        self.widths = (0, 0)
        self.payloads: dict[str, list[Any]] = {}
        self.fields: dict[str, Any] = {}
        self._tensors: list[torch.Tensor] = []
        self._copies: dict[torch.device, Copy] = {}

    @property
    def gradients(self) -> bool:
        """Whether gradient norms and update ratios of this step are due."""
        return self.plan.gradients

    @property
    def sampled(self) -> bool:
        """Whether activations, weights and the other heavy probes of this step are due."""
        return self.plan.sampled

    @property
    def rare(self) -> bool:
        """Whether the expensive statistics of this step are due as well."""
        return self.plan.rare

    def defer(self, tensor: torch.Tensor) -> Slot:
        """Keep a tensor of ours for the recorder; returns the slot to read it from."""
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def put(self, probe: str, payload: Any) -> None:
        """Hand a payload (slots and plain values) to the probe's ``decode``; several add up in order."""
        self.payloads.setdefault(probe, []).append(payload)

    def drop_details(self) -> None:
        """Forget all columns: the recorder is too far behind."""
        for name in ("activations", "weights", "attention", "histograms"):
            self.payloads.pop(name, None)

    def keep_scalars_only(self, widths: tuple[int, int]) -> None:
        """The model changed: columns, read with the widths that it had, do not fit the next layout."""
        if not self.scalars_only:
            self.scalars_only, self.widths = True, widths

    def seal(self, transfers: Transfers) -> bool:
        """Start the one copy per device. On the CPU there is nothing to copy.

        False when a ring was full: then nothing that was measured can be read.
        """
        remote: dict[torch.device, list[torch.Tensor]] = {}
        for tensor in self._tensors:
            if tensor.device.type == "cuda":
                remote.setdefault(tensor.device, []).append(tensor)
        for device, tensors in remote.items():
            copy = transfers.start(device, tensors)
            if copy is None:
                self.payloads, self._tensors, self.lost = {}, [], True
                return False
            self._copies[device] = copy
        return True

    def ready(self) -> bool:
        """Whether the values can be read without waiting."""
        return all(copy.ready() for copy in self._copies.values())

    def finish(self) -> None:
        """Wait for the copies; only when the run is over."""
        for copy in self._copies.values():
            copy.finish()

    def values(self) -> list[Values]:
        """Every deferred tensor as a flat float64 array, by slot; empty where it cannot be read.

        Recorder thread only.
        """
        remote = {device: iter(copy.values()) for device, copy in self._copies.items()}
        return [next(remote[t.device]) if t.device in remote else _on_host(t) for t in self._tensors]


@dataclass(frozen=True, slots=True)
class Later:
    """A record that takes long to make: ``make`` is called in the recorder thread with the time (seconds)."""

    make: Callable[[float], Record]


class Block:
    """Plain steps in a row: when each ended and what was logged, nothing else.

    Attributes:
        first: number of the first step.
        started_s: when it began; times are seconds since the start of the run.
        ends: when each step ended.
        logged: (place in the block, name, value), tensors ours.
        rates: (place, learning rate per group) wherever it changed, the first step included.
        restarts: (place, time) of steps that began later than the one before ended.
        fetched: (place, seconds waited for data, samples) where a loader told.
        watch_s: what torchwatch took in the training thread, all steps together.
    """

    __slots__ = (
        "_frame",
        "ends",
        "epoch",
        "fetched",
        "first",
        "logged",
        "lost",
        "rates",
        "restarts",
        "started_s",
        "watch_s",
    )

    def __init__(self, first: int, epoch: int, started_s: float) -> None:
        self.first, self.epoch, self.started_s = first, epoch, started_s
        self.ends: list[float] = []
        self.logged: list[tuple[int, str, Any]] = []
        self.rates: list[tuple[int, list[Any]]] = []
        self.fetched: list[tuple[int, float | None, int | None]] = []
        self.restarts: list[tuple[int, float]] = []
        self.watch_s = 0.0
        self.lost = False
        self._frame: Frame | None = None

    def split(self) -> Block:
        """Cut off the newest step, with what was logged for it and after it, as a block of its own."""
        cut = len(self.ends) - 1
        rest = self.part(cut)
        self.ends.pop()
        self.logged = [entry for entry in self.logged if entry[0] < cut]
        self.fetched = [entry for entry in self.fetched if entry[0] < cut]
        self.rates = [entry for entry in self.rates if entry[0] < cut]
        self.restarts = [entry for entry in self.restarts if entry[0] < cut]
        return rest

    def part(self, start: int, stop: int | None = None) -> Block:
        """The steps from place ``start`` to ``stop`` (not included) as a block of its own.

        Without ``stop`` it has all that follow, and values that were logged after them or are on their way
        from a device.
        """
        last = sys.maxsize if stop is None else stop
        began = dict(self.restarts).get(start, self.ends[start - 1] if start else self.started_s)
        part = Block(self.first + start, self.epoch, began)
        part.ends = self.ends[start:stop]
        part.logged = [(at - start, n, value) for at, n, value in self.logged if start <= at < last]
        part.fetched = [(at - start, s, n) for at, s, n in self.fetched if start <= at < last]
        part.restarts = [(at - start, time_s) for at, time_s in self.restarts if start < at < last]
        before = [rates for at, rates in self.rates if at <= start][-1:]
        part.rates = [(0, rates) for rates in before]
        part.rates += [(at - start, rates) for at, rates in self.rates if start < at < last]
        part.lost = self.lost
        part._frame = self._frame if stop is None else None
        return part

    def durations(self) -> list[float]:
        """Seconds of each step."""
        starts = [self.started_s, *self.ends[:-1]]
        for at, time_s in self.restarts:
            if at < len(starts):
                starts[at] = time_s
        return [end - start for start, end in zip(starts, self.ends, strict=True)]

    def busy(self) -> list[float]:
        """Seconds of each step without waiting for data."""
        busy = self.durations()
        for at, wait_s, _ in self.fetched:
            if wait_s is not None and at < len(busy):
                busy[at] -= wait_s
        return busy

    def seal(self, transfers: Transfers) -> bool:
        """Start the copy of values that are on a device; False when there was no room for them."""
        remote = [v for _, _, v in self.logged if isinstance(v, torch.Tensor) and v.device.type != "cpu"]
        if not remote:
            return True
        self._frame = Frame(unmeasured(self.first))
        for value in remote:
            self._frame.defer(value)
        if self._frame.seal(transfers):
            return True
        self._frame, self.lost = None, True
        self.logged = [entry for entry in self.logged if not isinstance(entry[2], torch.Tensor)]
        return False

    def ready(self) -> bool:
        """Whether the values can be read without waiting."""
        return self._frame is None or self._frame.ready()

    def finish(self) -> None:
        """Wait for the copy; only when the run is over."""
        if self._frame is not None:
            self._frame.finish()

    def values(self) -> list[float]:
        """Every logged value as a number, in the order of ``logged``. Recorder thread only."""
        raw = [value for _, _, value in self.logged]
        if self._frame is not None:
            remote = iter(self._frame.values())
            return [
                _number(next(remote)) if isinstance(v, torch.Tensor) and v.device.type != "cpu" else _mean(v)
                for v in raw
            ]
        if raw and all(type(v) is torch.Tensor and not v.dim() and v.dtype is raw[0].dtype for v in raw):
            together: list[float] = torch.stack(raw).to(torch.float64).tolist()
            return together
        return [_mean(v) for v in raw]


def _number(values: Values) -> float:
    return float(values.mean()) if values.size else float("nan")


def _mean(value: torch.Tensor | float) -> float:
    return float(value.double().mean()) if isinstance(value, torch.Tensor) else float(value)


def _on_host(tensor: torch.Tensor) -> Values:
    try:
        tensor = tensor.detach()
        if tensor.dtype not in _NUMPY or tensor.device.type != "cpu":
            tensor = tensor.to("cpu", torch.float64)
        return tensor.numpy().reshape(-1).astype(np.float64)
    except RuntimeError:  # a FakeTensor or another subclass without values of its own
        return np.empty(0)


class Probe:
    """One thing that is measured. Subclasses override the moments they need; the rest do nothing.

    All moments but ``attach``, ``detach`` and ``next_step`` run without autograd, without autocast and
    invisible to ``__torch_function__`` modes. What they raise switches the probe off after the second time.

    The order of a sampled step: ``arm`` · ``model_starts`` · ``layer_ran`` per layer · ``model_ran`` ·
    ``backward_starts`` · ``layer_gradient`` per layer, last layers first · ``merge`` · ``gradients`` ·
    ``before_step`` · ``after_step`` · ``disarm``. Evaluation and discarded passes run the forward moments too
    (``recording`` tells whether autograd was on), but no gradient moments.
    """

    name: ClassVar[str]
    writes: ClassVar[tuple[str, ...]]
    asked_last: ClassVar[tuple[str, ...]] = ()
    """Moments at which this probe is asked after all others."""
    follows_modules = False
    """Whether ``module_starts`` and ``module_ran`` are wanted; decided in ``attach``."""

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """The watcher attached to the model."""
        self.patient = patient
        self.config = config

    def next_step(self, plan: Plan) -> None:
        """The next step is planned. In the training thread, between steps, with the host's own torch state.

        Called when the plan before or this one measures something, or a window of the profiler is due; not
        between two steps in which nothing is measured.
        """

    def arm(self, plan: Plan) -> None:
        """The next step will be sampled."""

    def disarm(self) -> None:
        """The sampled step is over."""

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:
        """The watched model is called. Sampled steps only."""

    def layer_ran(
        self, index: int, module: torch.nn.Module, args: tuple[Any, ...], output: Any, *, recording: bool
    ) -> None:
        """A watched layer has run: its arguments (by position, then by keyword) and output.

        Sampled steps only, and never while a checkpoint recomputes.
        """

    def layer_ran_light(self, index: int, output: Any) -> None:
        """A watched layer has run in a step that is not sampled, while the sentinel is on."""

    def module_starts(self, module: torch.nn.Module) -> None:
        """Any module of the process is about to run. Sampled steps only, also while a checkpoint recomputes.

        For probes with ``follows_modules``. Bookkeeping only: tensor work here would be recorded by autograd.
        """

    def module_ran(self, module: torch.nn.Module, output: Any) -> None:
        """Any module of the process has run; as :meth:`module_starts`. It is missing where forward raised."""

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:
        """The watched model has run. On sampled steps, and on others where a forward hook is on anyway."""

    def trained(self, turn: int) -> None:
        """A gradient arrived in pass ``turn``: it is trained on. May come several times for one pass.

        ``turn`` counts the calls of ``model_ran`` that came before that pass's own. On every step in which
        ``model_ran`` is called, not only on sampled ones.
        """

    def backward_starts(self) -> None:
        """The gradient of the model's output is there. Sampled steps only."""

    def layer_gradient(self, index: int, gradient: torch.Tensor) -> None:
        """The gradient of a watched layer's first output is there. Sampled steps only.

        It belongs to autograd: reduce it at once, never keep it.
        """

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:
        """The gradients of this step are complete (before the step; after it where a closure makes them)."""

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:
        """An optimizer is about to step the parameters with the indices ``held``."""

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:
        """The optimizer has stepped."""

    def merge(self, frame: Frame) -> None:
        """Put what was collected since the last optimizer step into the frame."""

    def closing(self, frame: Frame) -> None:
        """The record of a step closes: what was seen after its optimizer step belongs to it."""

    def forget(self) -> None:
        """The model changed: what was collected of it has old indices."""

    def detach(self) -> None:
        """The watcher is leaving: drop every reference, put everything back."""

    def coverage(self) -> str:
        """``ok``, or why this probe sees nothing or less than all; goes into the layout record."""
        return "ok"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """The fields of the step record. Recorder thread only.

        A value that is a :class:`~torchwatch.records.Record` becomes a line of its own after the step.
        """
        raise NotImplementedError

    @staticmethod
    def complete(
        fields: dict[str, Any],  # noqa: ARG004
        payloads: list[Any],  # noqa: ARG004
        values: list[Values],  # noqa: ARG004
        frame: Frame,  # noqa: ARG004
    ) -> dict[str, Any]:
        """More fields, concluded from the decoded ``fields`` of all probes. Recorder thread only.

        Called for probes that override it and put a payload into the frame.
        """
        return {}
