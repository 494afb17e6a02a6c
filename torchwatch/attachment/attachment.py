"""The hooks of one watcher.

Two global optimizer hooks are always on; one global forward hook is on for sampled steps (and, while the host
does not log a loss, in a light mode that only looks at scalar outputs). Nothing is stored on the model.

Longer than a file should be: the order in which these few events may come is one subject.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from torchwatch.attachment.company import Company
from torchwatch.attachment.coverage import coverage
from torchwatch.attachment.crew import MOMENTS, Crew, overriding
from torchwatch.attachment.hooks import (
    Arguments,
    after_hook,
    before_hook,
    forward_hook,
    forward_pre_hook,
    gradient_hook,
    host_time_of,
    loss_hook,
    observing,
    pass_hook,
    remove,
    skipped_hook,
    total_norm_hook,
)
from torchwatch.attachment.newest import gradients_stand
from torchwatch.attachment.quiet import Quiet
from torchwatch.attachment.steps import StepBuilder
from torchwatch.budget import Budget
from torchwatch.config import WatchConfig
from torchwatch.guard import Guard
from torchwatch.patient import Patient
from torchwatch.probe import Block, Frame, Later
from torchwatch.probes import _torch
from torchwatch.probes.activations import Seen, batch_size, tensors
from torchwatch.probes.loss import SHARE
from torchwatch.records import Layout, Note
from torchwatch.schedule import Plan, Schedule, unmeasured

_SIGNATURE = 8
_SHARED = "num_items_in_batch"
"""By this keyword Hugging Face's Trainer tells a model what to divide its loss by: all items of the step."""
_COMPILED = "torch.compile is in use: activations and stale gradients are not measured, all else is"


class Attachment:
    """Attaches probes to a model and finds the steps.

    Args:
        model: what is watched; held weakly.
        config: sampling.
        emit: called with every finished :class:`Frame` and :class:`Layout`, and with notes; must not block.
        guard: keeps our failures away from the host.
        at_boundary: called after each optimizer step, unguarded: it calls the host's callback.
        scaler: the host's ``GradScaler``, if any.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: WatchConfig,
        emit: Callable[[Frame | Block | Later | Layout | Note], None],
        guard: Guard,
        at_boundary: Callable[[], None] = lambda: None,
        scaler: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.config, self.guard, self.clock = config, guard, clock
        self.at_boundary = at_boundary
        self.patient = Patient(model)
        self.schedule = Schedule(config)
        self.budget = Budget(config, self.schedule, len(self.patient.layers))
        me = weakref.ref(self)
        crew = Crew(
            total_norm_hook(me), skipped_hook(me), functools.partial(observing, me), host_time_of(me), emit
        )
        self.activations, self.wiring, self.clipping = crew.activations, crew.wiring, crew.clipping
        self.flops, self.profiler, self._inputs = crew.flops, crew.profiler, crew.inputs
        self._sentinel, self._gradients = crew.sentinel, crew.gradients
        self.probes = crew.all
        self._moments = {m: overriding(self.probes, m) for m in MOMENTS}
        self.steps = StepBuilder(
            _weakly(self.planned), crew.loss, self.probes, guard, _weakly(self._emit), clock, config.flush_s
        )
        self.lane = self.steps.lane
        self._plan = unmeasured(0)
        self._emit_item = emit
        self._scaler = scaler
        self._closed = False
        self._own_seen = False
        self._lanes = True
        self._lane_held: frozenset[int] = frozenset()
        self._company = Company()
        self._compiled = self._compiled_said = False
        self._pid = os.getpid()
        self._thread = self._forward_thread = threading.get_ident()
        self._layout_version = -1
        self._gradients_seen: tuple[Any, ...] = ()
        self._handles: list[Any] = []
        self._forward: Any = None
        self._forward_pre: Any = None
        self._full = self._summing = False
        self._trained = -1
        self.hook_started: float | None = None
        self.batch: Any = None
        self._told_at_once = 0
        self._awaiting_evaluation = False

    # ------------------------------------------------------------------ entering and leaving

    def enter(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Attach; the first step is sampled. ``optimizer``: one that is known before its first step."""
        for probe in self.probes:
            with self.guard(probe.name):
                probe.attach(self.patient, self.config)
        followers = {p.name for p in self.probes if p.follows_modules}
        for moment in ("module_starts", "module_ran"):
            self._moments[moment] = [m for m in self._moments[moment] if m[0] in followers]
        if optimizer is not None:
            self.patient.held_by(optimizer)
        me = weakref.ref(self)
        self._handles = list(_torch.register_optimizer_hooks(before_hook(me), after_hook(me)))
        self._arm(1)

    def leave(self) -> None:
        """Close the record and detach."""
        if self._closed:
            return
        with self.guard("step"):
            self.steps.close()
        self._closed = True
        for probe in self.probes:
            with self.guard(probe.name):
                probe.detach()
        handles = [h for h in (*self._handles, self._forward, self._forward_pre) if h is not None]
        self._handles, self._forward, self._forward_pre = [], None, None
        remove(handles)

    @property
    def here(self) -> bool:
        """Whether the watcher is open and this process is the one that entered (a forked worker is not)."""
        return not self._closed and os.getpid() == self._pid

    def in_training_thread(self) -> bool:
        """Whether this is the thread that entered, or has last been seen to run the model."""
        return threading.get_ident() == self._forward_thread

    def host_time(self) -> float:
        """Seconds of a clock that stands still while torchwatch works."""
        started = self.hook_started
        return (self.clock() if started is None else started) - self.steps.spent_s

    # ------------------------------------------------------------------ arming

    def planned(self, number: int) -> Plan:
        """What is measured in step ``number``."""
        if self._plan.number != number:
            self._plan = self.schedule.plan(number)
        return self._plan

    def _arm(self, number: int) -> None:
        """Get ready for step ``number``: the hooks that it needs, and no others."""
        plan = self.planned(number)
        self._trained = -1
        model = self.patient.model()
        usable = model is not None and not self.guard.is_off("forward")
        if usable and model is not None and plan.sampled:
            self._refresh()
            self._note_compiled(compiled=_torch.compiled(model))
        seeing = usable and not self._compiled
        was_full, self._full = self._full, seeing and plan.sampled
        self._summing = seeing and plan.sentinel
        for name, next_step in self._moments["next_step"]:
            with self.guard(name):
                if name not in self.guard.off:
                    next_step(plan)
        if self._full:
            self._call("arm", plan)
        elif was_full:
            self._call("disarm")
        self._hook(wanted=self._full or self._summing or (seeing and not self.steps.logs_loss))

    def _call(self, moment: str, *args: Any, **keywords: Any) -> None:
        """Run a moment of all probes that have it and are not switched off."""
        for name, method in self._moments[moment]:
            if name not in self.guard.off:
                with self.guard(name):
                    method(*args, **keywords)

    def _hook(self, *, wanted: bool) -> None:
        """Put the forward hooks on or take them off: one before on sampled steps, one after when wanted."""
        self._awaiting_evaluation = False
        if not wanted and self._forward is not None:
            self._forward.remove()
            self._forward = None
        elif wanted and self._forward is None:
            self._forward = _torch.register_forward_hook(forward_hook(weakref.ref(self)))
        if not self._full and self._forward_pre is not None:
            self._forward_pre.remove()
            self._forward_pre = None
        elif self._full and self._forward_pre is None:
            self._forward_pre = _torch.register_forward_pre_hook(forward_pre_hook(weakref.ref(self)))

    def _refresh(self) -> bool:
        """Look at the model again; True when it changed.

        What was measured of it as it was has that model's indices: no columns are better than wrong names.
        """
        widths = (len(self.patient.parameters), len(self.patient.layers))
        if not self.patient.refresh():
            return False
        if self.steps.frame is not None:
            self.steps.frame.keep_scalars_only(widths)
        self._call("forget")
        return True

    def _note_compiled(self, *, compiled: bool) -> None:
        """Dynamo came into use, or is out of use again: the coverage changes, and that is said once."""
        if compiled == self._compiled:
            return
        self._compiled = compiled
        self.patient.version += 1
        if compiled and not self._compiled_said:
            self._compiled_said = True
            self._emit_item(Note(topic="activations", message=_COMPILED))

    # ------------------------------------------------------------------ forward and backward

    def forward_starts(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        """A module of the process is called."""
        if self._moments["module_starts"]:
            self._call("module_starts", module)
        if module is not self.patient.model() or _torch.being_transformed() or _torch.in_backward():
            return
        recording = torch.is_grad_enabled()
        with Quiet():
            self._call("model_starts", args, recording=recording)

    def evaluation_may_follow(self) -> None:
        """The loop over the batches has ended: see the next pass, if it is one without autograd.

        It belongs to the step that was made last, which stays an open record until then.
        """
        if self._forward is not None or self._compiled or not self._own_seen or self.guard.is_off("forward"):
            return
        if self.lane.busy:
            held = self._lane_held
            frame = self.steps.reopen()
            if frame is not None:
                frame.held.update(held)
        if self.steps.frame is not None:
            self._hook(wanted=True)
            self._awaiting_evaluation = True

    def forward(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module of the process has run; ``args`` are its arguments, by position and by keyword."""
        if self._awaiting_evaluation:
            self._maybe_evaluation(module, args, output)
            return
        if self._full and self._moments["module_ran"]:
            self._call("module_ran", module, output)
        index = self.patient.layer_of(module)
        is_model = module is self.patient.model()
        if index is None and not is_model:
            self._maybe_loss_module(module, output)
            return
        if not self._full and not self._summing:
            index = None
        if (index is None and not is_model) or _torch.being_transformed() or _torch.in_backward():
            return
        self._forward_thread = threading.get_ident()
        recording = torch.is_grad_enabled()
        with Quiet():
            if index is not None and self._full:
                self._observe(index, module, args, output, recording=recording)
            elif index is not None:
                self._call("layer_ran_light", index, output)
            if is_model:
                self._model_ran(args, output, recording=recording)

    def _maybe_evaluation(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """The first pass of the model after the batches: an evaluation, or the training goes on."""
        if module is not self.patient.model() or _torch.being_transformed() or _torch.in_backward():
            return
        self._hook(wanted=False)
        if not torch.is_grad_enabled():
            with Quiet():
                self._model_ran(args, output, recording=False)

    def _observe(
        self, index: int, module: torch.nn.Module, args: tuple[Any, ...], output: Any, *, recording: bool
    ) -> None:
        if not self.guard.is_off("activations"):
            with self.guard("activations"):
                waiting = self.activations.observe(index, module, args, output, recording=recording)
                if waiting is not None:
                    tensor, seen = waiting
                    tensor.register_hook(gradient_hook(weakref.ref(self), index, seen))
        self._call("layer_ran", index, module, args, output, recording=recording)

    def _model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:
        ended = self.activations.end_of_pass(recording=recording)
        self._call("model_ran", args, output, recording=recording)
        if not recording:
            return
        root = next(tensors(output), None)
        if root is not None and root.grad_fn is not None:
            root.register_hook(pass_hook(weakref.ref(self), ended))
        size = batch_size(args)
        if size is not None:
            self.steps.pending.batches.append(size)
        loss = output.get("loss") if hasattr(output, "get") else getattr(output, "loss", None)
        if isinstance(loss, torch.Tensor) and loss.numel() == 1 and loss.grad_fn is not None:
            shared = isinstance(args, Arguments) and args.given(_SHARED)
            source = SHARE if shared else "output"
            loss.register_hook(loss_hook(weakref.ref(self), source, _torch.copied(loss)))

    def _maybe_loss_module(self, module: torch.nn.Module, output: Any) -> None:
        """The scalar, differentiable output of a module that is not watched is a loss."""
        if not self.in_training_thread():
            return
        if (
            self.steps.logs_loss
            or not isinstance(output, torch.Tensor)
            or output.dim()
            or output.grad_fn is None
        ):
            return
        if not _torch.being_transformed() and not _torch.in_backward():
            with Quiet():
                source = f"module {type(module).__name__} {id(module)}"
                output.register_hook(loss_hook(weakref.ref(self), source, _torch.copied(output)))

    def gradient_arrived(self, index: int, seen: Seen, gradient: torch.Tensor | None) -> None:
        """The gradient of a watched output is there; None where autograd has an undefined one."""
        if index < len(self.patient.layers):
            with self.guard("wiring"):
                self.wiring.gradient_arrives(index)
        with Quiet():
            self.activations.commit(seen)
            if seen.turn != self._trained:
                self._trained = seen.turn
                self._call("trained", seen.turn)
            if self._full and gradient is not None and index < len(self.patient.layers):
                self._call("layer_gradient", index, gradient)

    def backward_started(self, number: int) -> None:
        """The gradient of the model's own output is there: everything in that pass is trained on."""
        with Quiet():
            self.activations.commit_pass(number)
            self._call("trained", number)
            if self._full:
                self._call("backward_starts")

    def fetched(self, batch: Any, wait_s: float) -> None:
        """The host's loader gave a batch, after ``wait_s`` seconds."""
        self.steps.fetched(wait_s, batch_size(batch))
        if not self.guard.is_off("inputs") and not self.lane.open:
            started = self.clock()
            with self.guard("inputs"), Quiet():
                self._inputs.offer(batch)
            self.steps.spent(self.clock() - started)

    # ------------------------------------------------------------------ optimizer steps

    def before_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """An outermost optimizer is about to step."""
        held = self.patient.held_by(optimizer)
        if not held and self._refresh():
            held = self.patient.held_by(optimizer)
        if not held:
            self._foreign_step(optimizer)
            return
        self._own_seen = True
        if self.lane.busy and self._lane_held.isdisjoint(held):
            self._lanes = False  # another optimizer of the model: its step belongs to the lane's newest
            return
        if self.steps.overlaps(held):
            self.steps.close()
        if not closure and self._enters_lane(optimizer, held):
            return
        frame = self.steps.open()
        self.steps.merge(frame, closure=closure)
        if not closure:
            self._each("gradients", frame, optimizer, held)
        self._each("before_step", frame, optimizer, held)

    def _enters_lane(self, optimizer: torch.optim.Optimizer, held: list[int]) -> bool:
        """Whether the step that begins is plain, in a plain loop: one optimizer, a logged loss."""
        if not self._lanes or self.steps.frame is not None or not self.planned(self.steps.count + 1).plain:
            return False
        groups = optimizer.param_groups
        if (
            not self.steps.logs_loss
            or self._scaler is not None
            or len(self.patient.optimizers) != 1
            or self._company.types
            or getattr(optimizer, "grad_scale", None) is not None
            or not all(type(group.get("lr")) is float for group in groups)
            or threading.get_ident() != self._thread
        ):
            return False
        number = self.steps.count + 1
        self._lane_held = frozenset(held)
        self._hook(wanted=False)
        self.steps.enter_lane(optimizer, self.schedule.next_due(number + 1))
        return True

    def lane_stepped(self) -> None:
        """The optimizer has made a plain step."""
        steps, lane = self.steps, self.lane
        now = steps.now()
        try:
            if lane.stepped(now) or self.schedule.zoom_requested:
                self._lane_turns()
        except Exception as error:  # noqa: BLE001 - our failures stay ours
            self._lanes = False
            self.guard.failed("lane", error)
        took = steps.now() - now
        lane.watch_s += took if took < lane.longest_s else lane.waited()

    def _lane_turns(self) -> None:
        """The next step is not plain any more, or the recorder is to have what there is."""
        lane = self.lane
        if lane.ended or self.schedule.zoom_requested:
            lane.stop()
            self._arm(lane.last + 1)
            return
        block = lane.hand_over()
        if block is not None:
            self.steps.hand_over(block)

    def strange_loss(self) -> None:
        """A loss in the lane is not finite, or far from those before: look at it, and fully at the next step.

        Of the newest step there are its batch and, unless they were zeroed, its gradients still. Where the
        loss is of the step to come, the forward pass is over and the gradients are not there yet.
        """
        lost, ahead = self.lane.take_strange()
        if _torch.being_transformed() or not self.schedule.look(urgent=lost):
            return
        batch = self.batch if ahead == self.lane.awaits else None
        if batch is not None:
            with self.guard("sentinel"), Quiet():
                self._sentinel.offer(batch)
        if ahead:
            self.steps.close()
            number = self._told_at_once = self.steps.count + 1
            if self._plan.number != number or self._plan.plain:
                self._plan = Plan(number, gradients=True, sampled=False, rare=False, sentinel=False)
                self._call("next_step", self._plan)
            return
        held = sorted(self._lane_held)
        frame = self.steps.reopen(gradients=gradients_stand(self.patient, held), sentinel=True)
        if frame is None:
            return
        frame.urgent = True
        frame.held.update(held)
        with Quiet():
            with self.guard("gradients"):
                self._gradients.gradients(frame, None, held)
            with self.guard("sentinel"):
                self._sentinel.merge(frame)
        if not self._plan.sampled or self._plan.number != frame.number + 1:
            self._plan = unmeasured(0)
            self._arm(frame.number + 1)

    def after_step(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
        """An outermost optimizer has stepped. With a closure, the gradients were made inside of it."""
        held = self.patient.held_by(optimizer)
        frame = self.steps.frame
        if not held or frame is None:
            return
        frame.held.update(held)
        if closure:
            self.steps.merge(frame, closure=True)
            self._each("gradients", frame, optimizer, held)
        following = frame.number + 1 if self.steps.is_whole() else None
        if following is not None and self.planned(following).sampled and not self._compiled:
            with self.guard("wiring"):
                self.wiring.arm(self._plan)  # it notes what this step leaves behind
        self._each("after_step", frame, optimizer, held)
        if following is not None:
            self._arm(following)  # last: it may find another model, with other indices
        self.steps.stepped(frame)

    def skipped_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A ``GradScaler`` skipped a step of this optimizer, since a gradient was not finite."""
        held = self.patient.held_by(optimizer)
        if not held:
            return
        self._own_seen = True
        if self.steps.overlaps(held):
            self.steps.close()
        frame = self.steps.open()
        frame.fields["skipped"] = True
        self.steps.merge(frame)
        self._each("gradients", frame, optimizer, held)
        frame.held.update(held)
        if self.steps.is_whole():
            self._arm(frame.number + 1)
        self.steps.stepped(frame)

    def _each(
        self, moment: str, frame: Frame, optimizer: torch.optim.Optimizer | None, held: list[int]
    ) -> None:
        if _torch.being_transformed():
            return
        off = self.guard.off
        with Quiet():
            for name, measure in self._moments[moment]:
                if name not in off:
                    try:
                        measure(frame, optimizer, held)
                    except Exception as error:  # noqa: BLE001 - what the guard's context does, on a hot path
                        self.guard.failed(name, error)

    def _foreign_step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer without watched parameters: a record only if none of ours is left and gradients moved.

        While an optimizer holds watched parameters, others are other people's (another model, another
        thread). When the model's parameters were replaced, the optimizer that held the old ones is foreign
        from then on.
        """
        if threading.get_ident() != self._thread:
            return
        if any(entry.held for entry in self.patient.optimizers):
            if self._company.stepped(type(optimizer).__name__, self.steps.now_in - 1):
                self.patient.version += 1
            return
        signature = self._gradient_signature()
        if not signature or signature == self._gradients_seen:
            return
        self._gradients_seen = signature
        self.steps.close()
        frame = self.steps.open()
        frame.foreign = True
        self.steps.merge(frame)
        self._each("gradients", frame, optimizer, list(range(len(self.patient.parameters))))
        self.steps.stepped(frame)
        self._arm(frame.number + 1)

    def _gradient_signature(self) -> tuple[Any, ...]:
        found = []
        for _, parameter in self.patient.live_parameters():
            if parameter.grad is not None:
                found.append((id(parameter.grad), parameter.grad._version))
                if len(found) == _SIGNATURE:
                    break
        return tuple(found)

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Profile what the host does in the body; what the body raises passes."""
        started = False
        with self.guard("profiler"):
            started = self.schedule.profiling = self.profiler.start_by_hand(self.steps.now_in)
        try:
            yield
        finally:
            if started:
                self.schedule.profiling = False
                with self.guard("profiler"):
                    self.profiler.stop_by_hand(self.steps.now_in)

    def boundary(self, samples: int | None) -> None:
        """``watch.step()``: confirm the open step, or make one where there is no optimizer."""
        self._lanes = False  # a loop that names its boundaries may also have steps of which nobody knows
        if self.lane.busy:
            self.lane.sampled(samples)
            self.steps.close()
            self._arm(self.steps.count + 1)
            return
        frame = self.steps.frame
        if samples is not None:
            self.steps.pending.samples = samples
        if frame is not None:
            if samples is not None:
                frame.fields.pop("samples", None)
            self.steps.merge(frame)
        elif self._own_seen and self._scaler is None:
            return  # a micro-batch of an accumulation: its values wait for the optimizer step
        else:
            frame = self.step_without_optimizer()
        self.steps.close()
        self._arm(self.steps.count + 1)

    def go_on_from(self, step: int, epoch: int) -> None:
        """The training was resumed: the next step is ``step + 1``, in ``epoch`` (from 0).

        Only between entering and the first step that is seen.
        """
        self.steps.count, self.steps.epoch = step, epoch
        self._arm(step + 1)

    def step_without_optimizer(self) -> Frame:
        """A step that no optimizer makes ends here; the caller has closed the one before.

        A loop that updates by hand, a step that the GradScaler skipped (it may skip the first ones), or one
        that a trainer counts without making it. Its record stays open for what is logged, as any other.
        """
        frame = self.steps.open()
        if self._own_seen or self._scaler is not None:
            frame.fields["skipped"] = True
        self.steps.merge(frame)
        everything = [] if self._own_seen else list(range(len(self.patient.parameters)))
        self._each("gradients", frame, None, everything)
        self.steps.stepped(frame)
        return frame

    # ------------------------------------------------------------------ out

    def _emit(self, frame: Frame | Block) -> None:
        if isinstance(frame, Block):
            with self.guard("budget"):
                self.budget.plain_steps(frame.busy(), frame.watch_s)
            self._emit_item(frame)
            return
        if frame.started_s is not None and not frame.foreign and not frame.urgent:
            with self.guard("budget"):
                busy_s = frame.ended_s - frame.started_s - (frame.wait_s or 0.0)
                self.budget.step(frame.plan, busy_s, frame.watch_s)
        frame.urgent = frame.urgent or frame.number == self._told_at_once
        with self.guard("layout"):
            if self.patient.version != self._layout_version:
                self._layout_version = self.patient.version
                self._emit_item(self._layout(frame.number))
        if not frame.scalars_only:
            frame.widths = (len(self.patient.parameters), len(self.patient.layers))
        self._emit_item(frame)

    def _layout(self, step: int) -> Layout:
        seen = coverage(
            self.probes,
            self.patient,
            self.guard.off,
            compiled=self._compiled,
            stepped=self._own_seen,
            histograms=self.config.histograms,
        )
        return Layout(
            step=step,
            layers=self.patient.layer_infos(),
            parameters=self.patient.parameter_infos(),
            optimizers=self.patient.optimizer_infos(),
            coverage=seen,
            other_optimizers=list(self._company.types),
            flops_per_step=self.flops.flops_per_step,
            peak_flops_per_s=self.flops.peak_flops_per_s,
        )


def _weakly(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The bound method without a reference cycle: with the collector off, nothing of ours stays."""
    reference = weakref.WeakMethod(method)

    def call(argument: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(argument)

    return call
