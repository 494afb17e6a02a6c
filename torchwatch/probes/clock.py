"""How long forward pass, backward pass and optimizer take on sampled steps."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _torch
from torchwatch.schedule import Plan

PARTS = ("forward", "backward", "optimizer")
_MOST_PASSES = 64

Mark = float | torch.cuda.Event | None
"""A moment: of the host's clock, of a CUDA stream, or one that could not be taken."""


class Stretch(NamedTuple):
    """Time between two marks that counts to a part of the step, or (``sign`` -1) is taken out of it."""

    part: str
    sign: int
    start: Mark
    end: Mark


class ClockProbe(Probe):
    """Times the parts of a step.

    ``forward_s`` is the model's own forward pass, all passes of the step that are trained on. ``backward_s``
    goes from the gradient of the model's output to the end of that backward pass, gradient reduction of
    DistributedDataParallel included (and to the optimizer where autograd does not tell its end).
    ``optimizer_s`` is the optimizer's step without the closure's passes.

    On the CPU the clock stands still while torchwatch works. On CUDA, marks are events in the stream of the
    device, resolved without waiting; there the statistics that a sampled step takes are in its times.

    Args:
        host_time: seconds of a clock that stands still while torchwatch works.
    """

    name: ClassVar[str] = "clock"
    writes: ClassVar[tuple[str, ...]] = ("forward_s", "backward_s", "optimizer_s")
    asked_last: ClassVar[tuple[str, ...]] = ("model_starts", "before_step")

    def __init__(self, host_time: Callable[[], float] = time.perf_counter) -> None:
        self._host_time = host_time
        self._mark: Callable[[], Mark] | None = None
        self._turn = 0
        self._forward_seen = self._steps_seen = False
        self._other_device = ""
        self._clear()

    def _clear(self) -> None:
        self._started: Mark = None
        self._in_pass = False
        self._passes: dict[int, tuple[Mark, Mark]] = {}
        self._backward: Mark = None
        self._in_backward = False
        self._stretches: list[Stretch] = []
        self._stepping = False
        self._step: Mark = None
        self._inside: list[Stretch] = []

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """See where the model is."""
        super().attach(patient, config)
        self._choose()

    def _choose(self) -> Callable[[], Mark] | None:
        """How to take a mark on the model's device."""
        device = next((p.device for _, p in self.patient.live_parameters()), torch.device("cpu"))
        self._other_device = "" if device.type in ("cpu", "cuda") else device.type
        if self._other_device:
            return None
        return self._host_time if device.type == "cpu" else lambda: event(device)

    # ------------------------------------------------------------------ the passes

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Time the next step."""
        if self._mark is None:
            self._clear()
            self._mark = self._choose()

    def disarm(self) -> None:
        """The next step is not timed."""
        self._mark = None
        self._clear()

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:  # noqa: ARG002
        """A forward pass begins."""
        if self._mark is not None:
            self._end_backward()  # one that raised, or whose end was not told
            self._in_pass = recording
            self._started = self._mark() if recording else None

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """It is over; whether it is trained on shows later."""
        turn, self._turn = self._turn, self._turn + 1
        if self._mark is None or not self._in_pass or not recording:
            return
        self._forward_seen = True
        self._in_pass = False
        if len(self._passes) >= _MOST_PASSES:
            del self._passes[next(iter(self._passes))]
        self._passes[turn] = (self._started, self._mark())

    def trained(self, turn: int) -> None:
        """A pass is trained on."""
        passed = self._passes.pop(turn, None)
        if passed is not None:
            self._stretches.append(Stretch("forward", 1, *passed))

    def backward_starts(self) -> None:
        """A backward pass reached the model; several outputs may tell in the same one."""
        if self._mark is None or self._in_backward:
            return
        self._in_backward, self._backward = True, self._mark()
        me = weakref.ref(self)

        def ended() -> None:
            probe = me()
            if probe is not None:
                with contextlib.suppress(Exception):  # autograd would pass it on to the host
                    probe._end_backward()

        _torch.after_backward(ended)

    def _end_backward(self) -> None:
        if self._in_backward and self._mark is not None:
            self._stretches.append(Stretch("backward", 1, self._backward, self._mark()))
        self._in_backward = False

    # ------------------------------------------------------------------ the optimizer

    def gradients(self, frame: Frame, optimizer: torch.optim.Optimizer | None, held: Sequence[int]) -> None:  # noqa: ARG002
        """What was timed so far belongs to this step."""
        self._steps_seen = True
        if self._mark is None:
            return
        self._end_backward()
        if self._stepping:
            self._inside += self._stretches
        self._hand_over(frame)

    def _hand_over(self, frame: Frame) -> None:
        for stretch in self._stretches:
            frame.put(self.name, stretch)
        self._stretches = []

    def before_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """The optimizer begins."""
        if self._mark is None:
            return
        self._hand_over(frame)
        self._inside = []
        self._stepping, self._step = True, self._mark()

    def after_step(self, frame: Frame, optimizer: torch.optim.Optimizer, held: Sequence[int]) -> None:  # noqa: ARG002
        """The optimizer is done; a closure's passes are not its work."""
        if self._mark is None or not self._stepping:
            return
        frame.put(self.name, Stretch("optimizer", 1, self._step, self._mark()))
        for inner in self._inside:
            frame.put(self.name, inner._replace(part="optimizer", sign=-1))
        self._stepping, self._inside = False, []

    def detach(self) -> None:
        """Drop everything."""
        self.disarm()

    def coverage(self) -> str:
        """What is not timed, and why."""
        if self._other_device:
            return f"not measured: the queue of {self._other_device} cannot be timed without waiting for it"
        if self._steps_seen and not self._forward_seen:
            return "optimizer only: the model's own forward pass was not seen"
        return "ok"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """Seconds per part; a part of which one mark is missing, or not reached yet, is not measured."""
        fields: dict[str, Any] = {}
        for part in PARTS:
            lengths = [(s.sign, elapsed(s.start, s.end)) for s in payloads if s.part == part]
            known = [sign * length for sign, length in lengths if length is not None]
            if known and len(known) == len(lengths):
                fields[f"{part}_s"] = round(max(sum(known), 0.0), 7)
        return fields


def event(device: torch.device) -> Mark:
    """A mark in the device's current stream; None while the host captures a graph: it would go into it."""
    if torch.cuda.is_current_stream_capturing():
        return None
    mark = torch.cuda.Event(enable_timing=True)
    mark.record(torch.cuda.current_stream(device))
    return mark


def elapsed(start: Mark, end: Mark) -> float | None:
    """Seconds between two marks, None where that is not known without waiting. Any thread."""
    if start is None or end is None:
        return None
    if isinstance(start, float) or isinstance(end, float):
        return end - start if isinstance(start, float) and isinstance(end, float) else None
    if not (start.query() and end.query()):
        return None
    try:
        return float(start.elapsed_time(end)) * 1e-3
    except RuntimeError:  # marks of two devices
        return None
