"""One recording, from enter to exit: attachment, recorder and what the host says in between."""

from __future__ import annotations

import os
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from torchwatch.attachment import Attachment
from torchwatch.check import Selection
from torchwatch.config import WatchConfig
from torchwatch.engine import Engine
from torchwatch.guard import Guard
from torchwatch.header import describe, rank_path
from torchwatch.logs import LogWatch
from torchwatch.probe import Frame
from torchwatch.probes import _torch
from torchwatch.probes.loss import as_logged
from torchwatch.recorder import Mark, Outcome, Recorder, Sink, is_evaluation
from torchwatch.records import Alert, Note
from torchwatch.runfile import RunWriter
from torchwatch.schedule import unmeasured
from torchwatch.sinks.named import default_sinks

_MOST_NAMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked a watcher for, checked; fields as the keywords of :class:`~torchwatch.Watcher`."""

    path: Path
    config: WatchConfig
    selection: Selection
    name: str
    hyperparameters: dict[str, Any]
    recipe: str | None
    sinks: list[Sink] | None
    on_alert: Callable[[Alert], object] | None
    optimizer: torch.optim.Optimizer | None
    scaler: Any


class Session:
    """Everything that lives between enter and exit; holds no reference to the watcher."""

    def __init__(self, model: torch.nn.Module, wanted: Wanted) -> None:
        config = wanted.config
        start = time.perf_counter()
        self._on_alert = wanted.on_alert
        self._pid = os.getpid()
        self._ended = False
        self._in_epoch = False
        self._plain_names: set[str] = set()
        self._guard = Guard(_say_weakly(weakref.ref(self)))
        path = rank_path(wanted.path)
        writer = RunWriter(path)
        self.attachment = Attachment(
            model,
            config,
            self._put_weakly(),
            self._guard,
            _call_back_weakly(weakref.ref(self)),
            wanted.scaler,
        )
        self._clock, self._lane = self.attachment.clock, self.attachment.lane
        self.recorder = Recorder(
            writer,
            describe(model, wanted.selection, config, wanted.name or writer.path.stem, **_told(wanted)),
            Engine(wanted.selection),
            config,
            self.attachment.probes,
            wanted.sinks if wanted.sinks is not None else default_sinks(config),
            lambda: time.perf_counter() - start,
            budget=self.attachment.budget,
            growing=self._lane.growing,
        )
        if writer.path.name != path.name:
            self.say("path", f"{path} exists already: this run is written to {writer.path}")
        self.recorder.start()
        self.attachment.enter(wanted.optimizer)
        self._logs = LogWatch(self._put_weakly(), _failed_weakly(weakref.ref(self))) if config.logs else None
        if self._logs is not None:
            self._logs.enter()

    def _put_weakly(self) -> Callable[[Any], None]:
        me = weakref.ref(self)

        def put(item: Any) -> None:
            session = me()
            if session is not None:
                session.recorder.put(item)

        return put

    def say(self, topic: str, message: str) -> None:
        """A note of ours, for file and sinks."""
        self.recorder.put(Note(topic=topic, message=message))

    def failed(self, collector: str, error: Exception) -> None:
        """One of our collectors failed outside of the attachment."""
        self._guard.failed(collector, error)

    def log(self, values: Mapping[str, Any]) -> None:
        """Sort values into the step's and the evaluation's."""
        clock, lane = self._clock, self._lane
        started = clock()
        if self._plain_names.issuperset(values):
            try:
                if lane.log(values):
                    took = clock() - started
                    lane.watch_s += took if took < lane.longest_s else lane.waited()
                    if lane.strange:
                        self._look()
                    return
            except (RuntimeError, OverflowError, TypeError, ValueError):
                # One of them is no plain number after all: each is looked at by itself below.
                started = clock()
            except Exception as error:  # noqa: BLE001 - what the guard's context does, on a hot path
                self._guard.failed("log", error)
        if not self.attachment.here:
            return
        with self._guard("log"), _torch.without_torch_function(), torch.no_grad():
            evaluated = {k: v for k, v in values.items() if is_evaluation(k)}
            self._log_step({k: v for k, v in values.items() if k not in evaluated})
            if evaluated:
                still_open = self.attachment.steps.close_if_told()
                self._mark("eval", self.usable(evaluated), still_open)
                self.attachment.steps.restart_clock()
        self.attachment.steps.spent(clock() - started)

    def _look(self) -> None:
        """The loss that was logged is out of bounds."""
        started = self._clock()
        with self._guard("lane"), _torch.without_torch_function(), torch.no_grad():
            self.attachment.strange_loss()
        self.attachment.steps.spent(self._clock() - started)

    def _log_step(self, values: Mapping[str, Any]) -> None:
        if not values:
            return
        if len(self._plain_names) < _MOST_NAMES:
            self._plain_names.update(values)
        usable = self.usable(values)
        newest = next(
            (v for v in values.values() if isinstance(v, torch.Tensor) and v.grad_fn is not None), None
        )
        self.attachment.steps.log(usable, newest)

    def usable(self, values: Mapping[str, Any]) -> dict[str, torch.Tensor | float]:
        """Those that are numbers or tensors of numbers, which are copied; the others are named in a note."""
        usable, refused = as_logged(values)
        for name in refused:
            self.say("log", f"{name!r} is not a number or a tensor of numbers and was not logged")
        return usable

    def step(self, loss: Any, samples: int | None) -> None:
        """A boundary that the loop names."""
        with self._guard("log"):
            if loss is not None:
                self.attachment.steps.log_now(self.usable({"loss": loss}))
        with self._guard("step"):
            self.attachment.boundary(samples)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """The epoch ends."""
        with self._guard("epoch"), torch.no_grad():
            self.attachment.steps.close()
            self._mark("epoch", self.usable(metrics))
            self.attachment.steps.end_epoch()
            self._in_epoch = False

    def batches_end(self) -> None:
        """The loader has no more batches: often an evaluation comes now."""
        with self._guard("epoch"):
            self.attachment.evaluation_may_follow()

    def begin_epoch(self) -> None:
        """An iteration over the loader begins: the one before ends, if it trained and was not ended yet."""
        with self._guard("epoch"):
            if self._in_epoch:
                self.attachment.steps.close()
                if self.attachment.steps.in_epoch:
                    self.epoch({})
            self._in_epoch = True
            self.attachment.steps.close()
            self.attachment.steps.restart_clock()

    def _mark(self, kind: str, values: Mapping[str, torch.Tensor | float], step: int | None = None) -> None:
        steps = self.attachment.steps
        frame = Frame(unmeasured(steps.count))
        entries = {k: frame.defer(v) if isinstance(v, torch.Tensor) else float(v) for k, v in values.items()}
        frame.seal(steps.transfers)
        self.recorder.put(Mark(kind, frame, steps.epoch, steps.now(), entries, step))

    def call_back(self) -> None:
        """Tell the host of alerts, in its thread; what its callback raises is the host's."""
        outbox = self.recorder.outbox
        while outbox:
            alert = outbox.popleft()
            if self._on_alert is not None:
                self._on_alert(alert)

    def end(self, outcome: Outcome) -> None:
        """Detach, drain, write the end record."""
        if self._ended or os.getpid() != self._pid:
            return
        self._ended = True
        if self._logs is not None:
            self._logs.leave()
            if outcome.log is not None:
                self.recorder.put(outcome.log)
        self.attachment.leave()
        if self._in_epoch and self.attachment.steps.in_epoch:
            self._mark("epoch", {})
        self.recorder.stop(outcome)
        problem = self.recorder.writer.problem
        if problem is not None and not self.recorder.writer.complete and outcome.status == "finished":
            warnings.warn(f"torchwatch: {problem}", RuntimeWarning, stacklevel=4)

    @staticmethod
    def abandon(session: Session) -> None:
        """The watcher went away without an exit."""
        session.end(Outcome("interrupted"))


def _told(wanted: Wanted) -> dict[str, Any]:
    return {"hyperparameters": wanted.hyperparameters, "recipe": wanted.recipe}


def _call_back_weakly(reference: weakref.ref[Session]) -> Callable[[], None]:
    def call_back() -> None:
        session = reference()
        if session is not None:
            session.call_back()

    return call_back


def _say_weakly(reference: weakref.ref[Session]) -> Callable[[str, str], None]:
    def say(collector: str, message: str) -> None:
        session = reference()
        if session is not None:
            session.say(collector, message)
            # What is not measured any more is in the layout's coverage.
            session.attachment.patient.version += 1

    return say


def _failed_weakly(reference: weakref.ref[Session]) -> Callable[[Exception], None]:
    def failed(error: Exception) -> None:
        session = reference()
        if session is not None:
            session.failed("logs", error)

    return failed


def outcome_of(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> Outcome:
    """How a ``with`` block ended, from what ``__exit__`` is given."""
    if kind is None:
        return Outcome("finished")
    if not issubclass(kind, Exception):
        return Outcome("interrupted", kind.__name__)
    # format_exception_only survives an exception that cannot be printed
    said = traceback.format_exception_only(kind, error)[-1].strip()
    lines = traceback.format_exception(kind, error, trace)
    log = LogWatch.crash(error) if error is not None else None
    return Outcome("crashed", said, "".join(lines)[-20_000:], log)
