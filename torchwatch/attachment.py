"""Where torchwatch touches a training: the hooks, the step boundary, the arming of sampled steps.

Two global optimizer hooks are always on; one global forward hook is on for sampled steps (and, while the host
does not log a loss, in a light mode that only looks at scalar outputs). Nothing is stored on the model.

**A step** is a maximal run of ``optimizer.step()`` calls that touch each watched parameter at most once. Its
record closes at the next overlap, at ``watch.step()``, at the end of an epoch or at exit. Closing late lets
device values be read one step later, with no wait.

This file is longer than most: the order in which these few events may come is one subject.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch

from torchwatch.config import WatchConfig
from torchwatch.guard import Guard
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe
from torchwatch.probes import _torch
from torchwatch.probes.activations import ActivationProbe, Seen, batch_size
from torchwatch.probes.clipping import ClippingProbe
from torchwatch.probes.gradients import GradientProbe
from torchwatch.probes.learning_rate import LearningRateProbe
from torchwatch.probes.loss import Logged, LossProbe
from torchwatch.probes.updates import UpdateProbe
from torchwatch.probes.weights import WeightProbe
from torchwatch.probes.wiring import WiringProbe
from torchwatch.records import Layout

Emit = Callable[[object], None]
_SLACK = 2
"""Autograd nodes that may be made after a step (scaling a loss to log it) without counting as a new step."""


class Pending:
    """What was seen since the last optimizer step and belongs to the next one."""

    def __init__(self) -> None:
        self.logged: list[Logged] = []
        self.wait_s: float | None = None
        self.samples: int | None = None
        self.batches: list[int] = []


class Attachment:
    """The hooks of one watcher.

    Args:
        model: what is watched; held weakly.
        config: sampling and limits.
        emit: called with every finished :class:`Frame` and :class:`Layout`; must not block.
        guard: keeps our failures away from the host.
        scaler: the host's ``GradScaler``, if any.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: WatchConfig,
        emit: Emit,
        guard: Guard,
        scaler: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config, self.guard, self.emit, self.clock = config, guard, emit, clock
        self.patient = Patient(model)
        self.activations, self.wiring, self.loss = ActivationProbe(), WiringProbe(), LossProbe()
        self.clipping = ClippingProbe()
        self.probes: tuple[Probe, ...] = (
            GradientProbe(), self.clipping, LearningRateProbe(), UpdateProbe(), WeightProbe(),
            self.loss, self.wiring, self.activations,
        )  # fmt: skip
        self.scaler = scaler
        self.closed = False
        self.epoch = 0
        self.steps_in_epoch = 0
        self.steps = 0
        self.own_seen = self.logs_loss = self.logged_now = False
        self.compiled = False
        self.frame: Frame | None = None
        self.pending = Pending()
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._start = clock()
        self._last_end = 0.0
        self._sequence = 0
        self._fetched = False
        self._watch_s = 0.0
        self._previous: frozenset[int] = frozenset()
        self._layout_version = -1
        self._gradients_seen: tuple[Any, ...] = ()
        self._handles: list[Any] = []
        self._forward: Any = None
        self._mode = "off"

    # ------------------------------------------------------------------ entering and leaving

    def enter(self) -> None:
        """Attach; the first step is sampled."""
        for probe in self.probes:
            probe.attach(self.patient, self.config)
        model = self.patient.model()
        self.compiled = model is not None and _torch.compiled(model)
        me = weakref.ref(self)
        self._handles = list(_torch.register_optimizer_hooks(_pre_hook(me), _post_hook(me)))
        self._sequence = _torch.sequence_number()
        self._arm(1)

    def leave(self) -> None:
        """Close the record and detach. Inside an optimizer hook the removal waits until that hook is over."""
        if self.closed:
            return
        with self.guard("leave"):
            self.close_step()
        self.closed = True
        for probe in self.probes:
            with self.guard(probe.name):
                probe.detach()
        self.frame = None
        handles, self._handles = [h for h in (*self._handles, self._forward) if h is not None], []
        self._forward = None
        if _torch.optimizer_depth() == 0:
            _remove(handles)
        else:
            waiting = (handles, threading.get_ident())
            threading.Thread(
                target=_remove_later, args=waiting, name="torchwatch-detach", daemon=True
            ).start()

    @property
    def here(self) -> bool:
        """Whether this process is the one that entered (a forked worker is not) and the watcher is open."""
        return not self.closed and os.getpid() == self._pid

    def now(self) -> float:
        """Seconds since the start of the run."""
        return self.clock() - self._start

    def restart_clock(self) -> None:
        """What has passed since the last step was not training: the next step's time starts now."""
        self._last_end = self.now()

    # ------------------------------------------------------------------ arming

    def sampled(self, number: int) -> bool:
        """Whether activations and weights of step ``number`` are measured."""
        return number <= self.config.dense_steps or number % self.config.activations_every == 0

    def _arm(self, number: int) -> None:
        """Get ready for step ``number``: full hook on a sampled step, light one while no loss is logged."""
        full = self.sampled(number) and not self.guard.is_off("forward")
        if full:
            self.patient.refresh()
            model = self.patient.model()
            self.compiled = model is not None and _torch.compiled(model)
        if self.compiled:
            full = False
        light = not (self.logs_loss or self.compiled or self.guard.is_off("forward"))
        for probe in self.probes:
            if full:
                probe.arm(number)
            elif self._mode == "full":
                probe.disarm()
        self._mode = "full" if full else "light" if light else "off"
        if self._mode == "off" and self._forward is not None:
            self._forward.remove()
            self._forward = None
        elif self._mode != "off" and self._forward is None:
            self._forward = _torch.register_forward_hook(_forward_hook(weakref.ref(self)))

    # ------------------------------------------------------------------ forward

    def forward(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        """A module of the process has run."""
        index = self.patient.layer_of(module)
        is_model = module is self.patient.model()
        if index is None and not is_model:
            self._maybe_loss_module(module, output)
            return
        if self._mode != "full" and not is_model:
            return
        if _torch.being_transformed() or _torch.in_backward():
            return
        recording = torch.is_grad_enabled()
        with _Quiet():
            if index is not None and self._mode == "full":
                self._observe(index, module, args, output, recording=recording)
            if is_model:
                self._model_ran(args, output, recording=recording)

    def _observe(
        self, index: int, module: torch.nn.Module, args: Any, output: Any, *, recording: bool
    ) -> None:
        if self.guard.is_off("activations"):
            return
        waiting = self.activations.observe(index, module, args, output, recording=recording)
        if waiting is not None:
            tensor, seen = waiting
            tensor.register_hook(_gradient_hook(weakref.ref(self), index, seen))

    def _model_ran(self, args: Any, output: Any, *, recording: bool) -> None:
        self.activations.end_of_pass()
        if not recording:
            return
        size = batch_size(args)
        if size is not None:
            self.pending.batches.append(size)
        loss = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
        if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.grad_fn is not None:
            loss.register_hook(_loss_hook(weakref.ref(self), "output", loss.detach().clone()))

    def _maybe_loss_module(self, module: torch.nn.Module, output: Any) -> None:
        """The scalar, differentiable output of a module that is not watched is a loss."""
        if (
            self.logs_loss
            or not isinstance(output, torch.Tensor)
            or output.dim() != 0
            or output.grad_fn is None
        ):
            return
        if not _torch.being_transformed() and not _torch.in_backward():
            with _Quiet():
                source = f"module {type(module).__name__} {id(module)}"
                output.register_hook(_loss_hook(weakref.ref(self), source, output.detach().clone()))

    def gradient_arrived(self, index: int, seen: Seen) -> None:
        """The gradient of a watched output is there: its pass is trained on."""
        self.wiring.gradient_arrives(index)
        with _Quiet():
            self.activations.commit(seen)

    # ------------------------------------------------------------------ optimizer steps

    def before_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:  # noqa: FBT001
        """An outermost optimizer is about to step."""
        held = self.patient.held_by(optimizer)
        if not held and self.patient.refresh():
            held = self.patient.held_by(optimizer)
        if not held:
            self._foreign_step(optimizer)
            return
        self.own_seen = True
        if self.frame is not None and (self.frame.foreign or not self.frame.held.isdisjoint(held)):
            self.close_step()
        frame = self._open()
        self._merge(frame, closure=closure)
        if not _torch.being_transformed():
            with _Quiet():
                if not closure:
                    self._each("gradients", frame, optimizer, held)
                self._each("before_step", frame, optimizer, held)

    def after_step(self, optimizer: torch.optim.Optimizer, closure: bool) -> None:  # noqa: FBT001
        """An outermost optimizer has stepped."""
        held = self.patient.held_by(optimizer)
        frame = self.frame
        if not held or frame is None:
            return
        frame.held.update(held)
        if self._previous <= frame.held:
            self._arm(frame.number + 1)
        if not _torch.being_transformed():
            with _Quiet():
                if closure:
                    self._merge(frame, closure=True)
                    self._each("gradients", frame, optimizer, held)
                self._each("after_step", frame, optimizer, held)
        self._stepped(frame)

    def _stepped(self, frame: Frame) -> None:
        frame.ended_s = self.now()
        self._sequence = _torch.sequence_number()
        self._fetched = False

    def _each(self, moment: str, frame: Frame, optimizer: Any, held: list[int]) -> None:
        for probe in self.probes:
            if not self.guard.is_off(probe.name):
                with self.guard(probe.name):
                    getattr(probe, moment)(frame, optimizer, held)

    def _foreign_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer without watched parameters stepped: a record only when ours never did and gradients moved.

        Once an own optimizer was seen, others are other people's (another model, another thread).
        """
        if self.own_seen or threading.get_ident() != self._thread:
            return
        signature = self._gradient_signature()
        if not signature or signature == self._gradients_seen:
            return
        self._gradients_seen = signature
        self.close_step()
        frame = self._open()
        frame.foreign = True
        self._merge(frame, closure=False)
        with _Quiet():
            everything = list(range(len(self.patient.parameters)))
            self._each("gradients", frame, optimizer, everything)
        self._stepped(frame)
        self._arm(frame.number + 1)

    def _gradient_signature(self) -> tuple[Any, ...]:
        found = []
        for _, parameter in self.patient.live_parameters():
            if parameter.grad is not None:
                found.append((id(parameter.grad), parameter.grad._version))
                if len(found) == 8:
                    break
        return tuple(found)

    # ------------------------------------------------------------------ the record

    def _open(self) -> Frame:
        if self.frame is None:
            number = self.steps + 1
            self.frame = Frame(number, sampled=self.sampled(number), epoch=self.epoch)
            self.frame.started_s = self._last_end
            self.frame.ended_s = self.now()
        return self.frame

    def _merge(self, frame: Frame, *, closure: bool) -> None:
        """Everything seen since the last optimizer step goes into the frame."""
        pending, self.pending = self.pending, Pending()
        with self.guard("loss"):
            self.loss.take(frame, pending.logged)
        for probe in (self.clipping, self.activations):
            if not self.guard.is_off(probe.name):
                with self.guard(probe.name), _Quiet():
                    probe.merge(frame)
        if pending.wait_s is not None:
            frame.wait_s = (frame.wait_s or 0.0) + pending.wait_s
        sizes = pending.batches
        samples = (
            pending.samples
            if pending.samples is not None
            else max(sizes, default=0)
            if closure
            else sum(sizes)
        )
        if samples:
            frame.fields["samples"] = samples + frame.fields.get("samples", 0) * (not closure)

    def close_step(self) -> None:
        """The open record is complete: hand it to the recorder."""
        frame, self.frame = self.frame, None
        if frame is None:
            return
        self.steps = frame.number
        self.steps_in_epoch += 1
        self._previous = frozenset(frame.held)
        self._last_end = max(self._last_end, frame.ended_s)
        self.logs_loss, self.logged_now = self.logged_now, False
        with self.guard("layout"):
            self._maybe_layout(frame)
        frame.widths = (len(self.patient.parameters), len(self.patient.layers))
        frame.watch_s, self._watch_s = self._watch_s, 0.0
        if frame.foreign:
            frame.fields["foreign_optimizer"] = True
        with self.guard("transfer"):
            frame.seal()
        self.emit(frame)

    def _maybe_layout(self, frame: Frame) -> None:
        if self.patient.version == self._layout_version:
            return
        self._layout_version = self.patient.version
        self.emit(
            Layout(
                step=frame.number,
                layers=self.patient.layer_infos(),
                parameters=self.patient.parameter_infos(),
                optimizers=self.patient.optimizer_infos(),
                coverage=self._coverage(),
            )
        )

    def _coverage(self) -> dict[str, str]:
        off = self.guard.off
        ok = {probe.name: off.get(probe.name, "ok") for probe in self.probes}
        if self.compiled:
            ok["activations"] = ok["wiring"] = "unavailable: compiled"
        if not self.clipping.available:
            ok["clipping"] = "unavailable: norms are after clipping"
        if not self.own_seen:
            ok["updates"] = ok["learning_rate"] = "no optimizer seen"
        return ok

    # ------------------------------------------------------------------ what the host says

    def log(self, entries: dict[str, torch.Tensor | float], newest: torch.Tensor | None) -> None:
        """Logged values go to the step that they belong to: the open one, unless a new one has begun.

        ``newest``: one of the values as the host gave it, still with its autograd graph, if there is one.
        """
        target: list[Logged] = [(name, "log", value) for name, value in entries.items()]
        if "loss" in entries:
            self.logged_now = True
        frame = self.frame
        if frame is None or self._is_newer(newest):
            self.pending.logged += target
        else:
            self.loss.take(frame, target)

    def log_now(self, entries: dict[str, torch.Tensor | float]) -> None:
        """Logged values of the step that is about to be closed by ``watch.step()``."""
        self.logged_now = self.logged_now or "loss" in entries
        self.pending.logged += [(name, "log", value) for name, value in entries.items()]

    def _is_newer(self, value: torch.Tensor | None) -> bool:
        """Whether a value was computed after the last optimizer step, as far as autograd shows it."""
        if self._fetched:
            return True
        if value is not None:
            return not _torch.older_than(value, self._sequence)
        return _torch.sequence_number() > self._sequence + _SLACK

    def fetched(self, wait_s: float, samples: int | None) -> None:
        """A batch was fetched: whatever comes now belongs to a new step."""
        self._fetched = True
        self.pending.wait_s = (self.pending.wait_s or 0.0) + wait_s
        if samples is not None:
            self.pending.samples = (self.pending.samples or 0) + samples

    def boundary(self, samples: int | None) -> None:
        """``watch.step()``: confirm the open step, or make one where there is no optimizer."""
        if samples is not None:
            self.pending.samples = samples
        if self.frame is None:
            if self.own_seen and self.scaler is None:
                return
            frame = self._open()
            if self.own_seen:
                frame.fields["skipped"] = True
            self._merge(frame, closure=False)
            with _Quiet():
                everything = [] if self.own_seen else list(range(len(self.patient.parameters)))
                self._each("gradients", frame, None, everything)
            self._stepped(frame)
        else:
            if samples is not None:
                self.frame.fields.pop("samples", None)
            self._merge(self.frame, closure=False)
        self.close_step()
        self._arm(self.steps + 1)

    def spent(self, seconds: float) -> None:
        """Count time that torchwatch took in the training thread."""
        self._watch_s += seconds


class _Quiet:
    """Our own tensor work: no gradients, no autocast, invisible to ``__torch_function__`` overrides."""

    __slots__ = ("_autocast", "_function", "_grad")

    def __enter__(self) -> None:
        self._grad = torch.no_grad()
        self._grad.__enter__()
        self._function = _torch.without_torch_function()
        self._function.__enter__()
        device = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
        self._autocast = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else None
        if self._autocast is not None:
            self._autocast.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._autocast is not None:
            self._autocast.__exit__(None, None, None)
        self._function.__exit__(None, None, None)
        self._grad.__exit__(None, None, None)


def _forward_hook(reference: weakref.ref[Attachment]) -> Callable[..., None]:
    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        me = reference()
        if me is None or not me.here:
            return
        started = me.clock()
        with me.guard("forward"):
            me.forward(module, args, output)
        me.spent(me.clock() - started)

    return hook


def _gradient_hook(
    reference: weakref.ref[Attachment], index: int, seen: Seen
) -> Callable[[torch.Tensor], None]:
    def hook(_: torch.Tensor) -> None:
        me = reference()
        if me is None or not me.here:
            return
        started = me.clock()
        with me.guard("activations"):
            me.gradient_arrived(index, seen)
        me.spent(me.clock() - started)

    return hook


def _loss_hook(
    reference: weakref.ref[Attachment], source: str, value: torch.Tensor
) -> Callable[[torch.Tensor], None]:
    """A loss counts when a gradient arrives at it: a validation loss never does."""

    def hook(_: torch.Tensor) -> None:
        me = reference()
        if me is not None and me.here:
            me.pending.logged.append(("loss", source, value))

    return hook


def _pre_hook(reference: weakref.ref[Attachment]) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        me = reference()
        if torch.compiler.is_compiling() or me is None or not me.here or _torch.optimizer_depth() > 1:
            return
        started = me.clock()
        with me.guard("step"):
            me.before_step(optimizer, _has_closure(args, kwargs))
        me.spent(me.clock() - started)

    return hook


def _post_hook(reference: weakref.ref[Attachment]) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        me = reference()
        if torch.compiler.is_compiling() or me is None or not me.here or _torch.optimizer_depth() > 1:
            return
        started = me.clock()
        with me.guard("step"):
            me.after_step(optimizer, _has_closure(args, kwargs))
        me.spent(me.clock() - started)

    return hook


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return kwargs.get("closure") is not None or (len(args) > 1 and args[1] is not None)


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


def _remove_later(handles: list[Any], thread: int) -> None:
    """Removing a hook while its dictionary is iterated raises in the host: wait until the host left the step."""
    while _torch.optimizer_depth_of(thread) > 0:
        time.sleep(0.001)
    _remove(handles)
