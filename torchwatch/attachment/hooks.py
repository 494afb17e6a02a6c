"""The functions that torch calls. Each holds its attachment weakly and returns None, always.

A returned value would replace the module's output, the optimizer's arguments or the gradient.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch.utils.hooks import unserializable_hook

from torchwatch.attachment.quiet import Quiet
from torchwatch.probes import _torch
from torchwatch.probes.activations import Seen

if TYPE_CHECKING:
    from torchwatch.attachment.attachment import Attachment

Reference = weakref.ref["Attachment"]
GradientHook = Callable[[torch.Tensor], None]


def _unsaved(hook: GradientHook) -> GradientHook:
    """The hook, so marked that a host which saves its outputs is not warned because of us."""
    return cast("GradientHook", unserializable_hook(hook))


class _Timed:
    """Counts our time in the training thread, keeps our failures out of it, hides us from torch functions.

    A class rather than a generator: it runs per hook.
    """

    __slots__ = ("_collector", "_function", "_me", "_started")

    def __init__(self, me: Attachment, collector: str) -> None:
        self._me, self._collector = me, collector

    def __enter__(self) -> None:
        self._started = self._me.hook_started = self._me.clock()
        self._function = _torch.without_torch_function()
        self._function.__enter__()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self._function.__exit__(None, None, None)
        me = self._me
        me.steps.spent(me.clock() - self._started)
        me.hook_started = None
        if isinstance(error, Exception):
            me.guard.failed(self._collector, error)
            return True
        return False


class Arguments(tuple[Any, ...]):  # noqa: SLOT001 - a tuple's subclass cannot have any
    """Arguments of a call by position, then by keyword; ``keywords`` are the names of the latter."""

    keywords: tuple[str, ...]

    def __new__(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self:
        """Put them together."""
        self = super().__new__(cls, (*args, *kwargs.values()))
        self.keywords = tuple(kwargs)
        return self

    def given(self, name: str) -> bool:
        """Whether a keyword was given and is not None."""
        if name not in self.keywords:
            return False
        return self[len(self) - len(self.keywords) + self.keywords.index(name)] is not None


def forward_hook(reference: Reference) -> Callable[..., None]:
    """For the forward pass of every module of the process."""

    def hook(module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        me = reference()
        if me is not None and me.here:
            with _Timed(me, "forward"):
                me.forward(module, Arguments(args, kwargs) if kwargs else args, output)

    return hook


def forward_pre_hook(reference: Reference) -> Callable[..., None]:
    """For the start of the forward pass of every module of the process."""

    def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        me = reference()
        if me is not None and me.here:
            with _Timed(me, "forward"):
                me.forward_starts(module, args)

    return hook


def gradient_hook(reference: Reference, index: int, seen: Seen) -> GradientHook:
    """For the gradient of a watched layer's output: its pass is trained on."""

    @_unsaved
    def hook(gradient: torch.Tensor) -> None:
        me = reference()
        if me is not None and me.here:
            with _Timed(me, "activations"):
                me.gradient_arrived(index, seen, gradient)

    return hook


def pass_hook(reference: Reference, number: int) -> GradientHook:
    """For the gradient of the model's own output: everything in that pass is trained on."""

    @_unsaved
    def hook(_: torch.Tensor) -> None:
        me = reference()
        if me is not None and me.here:
            with _Timed(me, "activations"):
                me.backward_started(number)

    return hook


def loss_hook(reference: Reference, source: str, value: torch.Tensor) -> GradientHook:
    """A loss counts when a gradient arrives at it: a validation loss never does."""

    @_unsaved
    def hook(_: torch.Tensor) -> None:
        me = reference()
        if me is not None and me.here:
            with _Timed(me, "loss"):
                me.steps.pending.logged.append(("loss", source, value))

    return hook


def total_norm_hook(reference: Reference) -> _torch.TotalNormObserver:
    """For every total norm that clipping computes. Gradients are read in the thread that makes them, only."""

    def observer(gradients: list[torch.Tensor], total: torch.Tensor) -> None:
        me = reference()
        if me is not None and me.here and me.in_training_thread():
            with _Timed(me, "clipping"):
                me.clipping.saw(gradients, total)

    return observer


def skipped_hook(reference: Reference) -> Callable[[torch.optim.Optimizer], None]:
    """For every optimizer step that a ``GradScaler`` skips."""

    def observer(optimizer: torch.optim.Optimizer) -> None:
        me = reference()
        if me is not None and me.here and me.in_training_thread():
            with _Timed(me, "step"):
                me.skipped_step(optimizer)

    return observer


def host_time_of(reference: Reference) -> Callable[[], float]:
    """The clock of the host's own time, see ``Attachment.host_time``."""

    def host_time() -> float:
        me = reference()
        return 0.0 if me is None else me.host_time()

    return host_time


def observing(reference: Reference, collector: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a probe's bound method an observer that a function of torch may call.

    It is weak, timed, guarded and quiet, and silent in other threads, transforms and recomputed passes.
    """

    def wrap(method: Callable[..., None]) -> Callable[..., None]:
        weak = weakref.WeakMethod(method)

        def observer(*args: Any) -> None:
            me = reference()
            if me is None or not me.here or not me.in_training_thread() or me.guard.is_off(collector):
                return
            if _torch.being_transformed() or _torch.in_backward():
                return
            with _Timed(me, collector), Quiet():
                alive = weak()
                if alive is not None:
                    alive(*args)

        return observer

    return wrap


def before_hook(reference: Reference) -> Callable[..., None]:
    """For every optimizer of the process, before it steps."""

    def hook(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        me = reference()
        if me is None:
            return
        if not me.here:
            me.lane.stepping = False  # a fork of the process in which it was set
            return
        lane = me.lane
        if lane.serves(optimizer) and not _has_closure(args, kwargs):
            lane.stepping = True
        elif _torch.optimizer_depth() <= 1:
            with _Timed(me, "step"):
                me.before_step(optimizer, closure=_has_closure(args, kwargs))

    return hook


def after_hook(reference: Reference) -> Callable[..., None]:
    """For every optimizer of the process, after it stepped."""

    def hook(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        me = reference()
        if me is None:
            return
        if me.lane.stepping and me.lane.serves(optimizer):  # the hook before has looked at everything
            me.lane_stepped()
        elif not me.here or _torch.optimizer_depth() > 1:
            return
        else:
            with _Timed(me, "step"):
                me.after_step(optimizer, closure=_has_closure(args, kwargs))
        me.at_boundary()  # the host's own callback: what it raises passes

    return hook


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return kwargs.get("closure") is not None or (len(args) > 1 and args[1] is not None)


def remove(handles: list[Any]) -> None:
    """Remove the hooks; while any thread is inside an optimizer's step, as soon as it has left it.

    Removing one while its dictionary is iterated would raise "mutated during iteration" in the host.
    """
    if not _torch.any_thread_steps():
        _remove_now(handles)
        return
    threading.Thread(target=_remove_later, args=(handles,), name="torchwatch-detach", daemon=True).start()


def _remove_now(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


def _remove_later(handles: list[Any]) -> None:
    while _torch.any_thread_steps():
        time.sleep(0.001)
    _remove_now(handles)
