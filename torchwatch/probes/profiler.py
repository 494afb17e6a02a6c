"""Opt-in windows of ``torch.profiler``: where the time of a step goes, per layer and per kind of operator."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from torchwatch.probe import Later, Probe
from torchwatch.probes import _torch
from torchwatch.probes._profile import MARK, summarise
from torchwatch.records import Profile
from torchwatch.schedule import Plan


@dataclass(eq=False)
class _Window:
    """A profiler that runs, the hooks that mark layers, the ranges that are open, and what went wrong."""

    profiler: Any
    first: int
    handles: list[Any] = field(default_factory=list)
    open: list[tuple[torch.nn.Module, Any]] = field(default_factory=list)
    failed: str = ""
    take_back: Callable[[], None] = field(default=lambda: None)

    def ran(self, module: torch.nn.Module) -> None:
        """Close the module's range, and whatever an exception left open inside of it."""
        while any(m is module for m, _ in self.open):
            inner, span = self.open.pop()
            span.__exit__(None, None, None)
            if inner is module:
                return

    def close(self) -> None:
        """Take the hooks off and stop the profiler."""
        self.take_back()
        for handle in self.handles:
            handle.remove()
        while self.open:
            self.open.pop()[1].__exit__(None, None, None)
        self.profiler.stop()


class ProfilerProbe(Probe):
    """Profiles ``profile_steps`` steps in every ``profile_every``, or what ``watch.profile()`` encloses.

    Started and stopped in the training thread, between steps, and never while a profiler of the host's runs:
    a second one would empty the host's capture. When the host starts its own, an open window gives way.
    Layers are marked by ranges of our own; backward time is joined by autograd's sequence numbers. On CUDA,
    torch itself waits for the device when a window opens and closes.

    Args:
        emit: takes the window's record, which is made in the recorder thread.
    """

    name: ClassVar[str] = "profiler"
    writes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, emit: Callable[[Later], None]) -> None:
        self._emit = emit
        self._window: _Window | None = None
        self._by_hand = False
        self._number = 0
        self._why = ""

    def next_step(self, plan: Plan) -> None:
        """Open the window that is due, close the one that is over."""
        self._number = plan.number
        if self._by_hand:
            return
        if plan.profiled and self._window is None:
            self._start()
        elif not plan.profiled and self._window is not None:
            self._stop()

    def start_by_hand(self, number: int) -> bool:
        """Open a window in step ``number``; False where a profiler runs already."""
        self._number = number
        self._by_hand = self._window is None and self._start()
        return self._by_hand

    def stop_by_hand(self, number: int) -> None:
        """Close that window; step ``number`` is not in it."""
        self._number, self._by_hand = number, False
        self._stop()

    def _start(self) -> bool:
        if _torch.profiler_runs():
            self._said("a profiler of the host's was running")
            return False
        if _torch.being_transformed():
            self._said("a dispatch mode or a trace of the host's was active")
            return False
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._on_device():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        profiler = torch.profiler.profile(activities=activities)
        window = _Window(profiler, self._number)
        layers = {id(m): layer.name for layer in self.patient.layers if (m := layer.module()) is not None}

        def before(module: torch.nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001
            name = layers.get(id(module))
            if name is not None and not window.failed and not _torch.being_transformed():
                try:
                    span = torch.profiler.record_function(MARK + (name or type(module).__name__))
                    span.__enter__()
                    window.open.append((module, span))
                except Exception as error:  # noqa: BLE001 - the host's forward pass must go on
                    window.failed = f"{type(error).__name__}: {error}"

        def after(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ARG001
            try:
                window.ran(module)
            except Exception as error:  # noqa: BLE001 - as above
                window.failed = f"{type(error).__name__}: {error}"

        profiler.start()
        self._window = window
        window.take_back = _torch.before_a_profiler_starts(self._giving_way())
        window.handles = [_torch.register_forward_pre_hook(before), _torch.register_forward_hook(after)]
        return True

    def _giving_way(self) -> Callable[[], None]:
        """What closes the window when the host starts a profiler of its own."""
        me = weakref.ref(self)

        def give_way() -> None:
            probe = me()
            if probe is not None and probe._window is not None:
                probe._window.close()
                probe._window, probe._by_hand = None, False
                probe._said("the host started its own profiler")

        return give_way

    def _stop(self) -> None:
        window, self._window = self._window, None
        if window is None:
            return
        window.close()
        if window.failed:
            self._said(f"marking layers failed with {window.failed}")
        trace = self._export(window) if self.config.profile_trace is not None else None
        steps, on_device = max(self._number - window.first, 1), self._on_device()

        def record(time_s: float) -> Profile:
            data = summarise(window.profiler.events(), on_device=on_device)
            return Profile(step=window.first, time_s=time_s, data={"steps": steps, "trace": trace, **data})

        self._emit(Later(record))

    def _export(self, window: _Window) -> str:
        folder = Path(self.config.profile_trace or ".")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"trace-{os.getpid()}-step{window.first}.json"
        path.touch(mode=0o600)
        window.profiler.export_chrome_trace(str(path))
        path.chmod(0o600)
        return str(path)

    def _on_device(self) -> bool:
        return any(p.is_cuda for _, p in self.patient.live_parameters())

    def _said(self, why: str) -> None:
        if why != self._why:
            self._why = why
            self.patient.version += 1

    def detach(self) -> None:
        """Close a window that is open; it is not reported."""
        window, self._window = self._window, None
        if window is not None:
            window.close()

    def coverage(self) -> str:
        """Whether windows could be opened."""
        if self.config.profile_every is None and not self._why:
            return "off: set profile_every, or use watch.profile()"
        return f"a window was left out: {self._why}" if self._why else "ok"
