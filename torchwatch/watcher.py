"""``with Watcher(model):`` records what happens inside the network while it is trained."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import threading
import time
import traceback
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

import torchwatch
from torchwatch.attachment import Attachment
from torchwatch.check import select
from torchwatch.config import WatchConfig
from torchwatch.engine import Engine
from torchwatch.errors import ConfigError, ModelError, WatcherClosed
from torchwatch.guard import Guard
from torchwatch.probe import Frame
from torchwatch.probes.activations import batch_size
from torchwatch.probes.loss import as_logged
from torchwatch.recorder import Mark, Outcome, Recorder, Sink, is_evaluation
from torchwatch.records import Alert, Note, RunHeader
from torchwatch.runfile import RunWriter

T = TypeVar("T")


class Watcher:
    """Watches a model while it is trained, and writes what it sees to a run file.

    ::

        with Watcher(model, "runs/digits.jsonl") as watch:
            for epoch in range(20):
                for x, y in watch.batches(loader):
                    loss = F.cross_entropy(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    watch.log(loss=loss)
                watch.epoch(val_loss=...)

    Training is the same to the last bit with and without it, and nothing is stored on the model.

    Args:
        model: the module that is trained; held weakly.
        path: run file (default ``runs/<time>-<model>.jsonl``). An existing one is left alone: the name gets a
            number. Rank r > 0 of a distributed run writes ``<name>.rank<r>.jsonl``.
        config: everything else that can be set, see :class:`WatchConfig`. A keyword here beats the config.
        optimizer: an optimizer of the model, if it should be in the first layout before its first step.
        scaler: the loop's ``GradScaler``: skipped steps and the scale become exact.
        name: name of the run (default: the file's).
        hyperparameters: what you want to find again in the header.
        limits: limits of checks, ``{"overfitting": {"patience": 5}}``.
        ignore: checks that are not to run.
        sinks: where records go as well (default: alerts on standard error).
        on_alert: called with each :class:`~torchwatch.records.Alert` in the training thread at the next step
            boundary; what it raises is yours.
        stop_on: when :attr:`should_stop` turns true: ``"critical"``, or a number: a health score below it.
        recipe: ``"train.py:build"``, a function that rebuilds model and data for a later autopsy. Recorded as
            text, never run by itself.
        budget: not available in this version; must be None.

    Raises:
        ModelError: ``model`` is not a ``torch.nn.Module``.
        ConfigError: an unknown check, limit or option.
        RunBusy: another live watcher writes ``path``.
        UsageError: ``path`` is a directory.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        path: str | os.PathLike[str] | None = None,
        *,
        config: WatchConfig | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        name: str | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        limits: Mapping[str, Mapping[str, Any]] | None = None,
        ignore: Iterable[str] | None = None,
        sinks: Iterable[Sink] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        stop_on: str | float | None = None,
        recipe: str | None = None,
        budget: float | None = None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise ModelError(f"a Watcher watches a torch.nn.Module, not {type(model).__name__}")
        if budget is not None:
            raise ConfigError("this version has no budget: set activations_every and gradients_every instead")
        ignored = None if ignore is None else (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self.config = (config or WatchConfig()).with_keywords(limits=limits, ignore=ignored)
        self._selection = select(self.config.limits, self.config.ignore)
        self._stop_on = _stop_rule(stop_on)
        self._model = weakref.ref(model)
        self._wanted = Path(path) if path is not None else _default_path(model)
        self._optimizer, self._scaler = optimizer, scaler
        self._header = {
            "name": name or "",
            "hyperparameters": dict(hyperparameters or {}),
            "recipe": recipe,
        }
        self._sinks = None if sinks is None else list(sinks)
        self._on_alert = on_alert
        self._session: _Session | None = None
        self._depth = 0
        self._closed = False

    # ------------------------------------------------------------------ context

    def __enter__(self) -> Self:
        if self._closed:
            raise WatcherClosed("this watcher is closed: make a new Watcher to record another run")
        self._depth += 1
        if self._session is None:
            model = self._model()
            if model is None:
                raise ModelError("the model of this watcher is gone: keep a reference to it")
            self._session = _Session(self, model)
            weakref.finalize(self, _Session.abandon, self._session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth > 0 or self._session is None:
            return
        self._closed = True
        self._session.end(_outcome(kind, error, trace))
        if kind is None:
            self._call_back()

    def close(self) -> None:
        """End the run now; the same as leaving the ``with`` block. Idempotent."""
        if not self._closed and self._session is not None:
            self._depth = 1
            self.__exit__(None, None, None)
        self._closed = True

    # ------------------------------------------------------------------ what the loop says

    def log(self, **values: Any) -> None:
        """Log values of this step: numbers or tensors (read later, never synchronised), or a dict per class.

        Within an accumulation they are averaged. ``val_*``, ``valid_*``, ``eval_*`` and ``test_*`` write an
        evaluation record at once.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        session = self._open()
        if session.attachment.here:
            session.log(values)

    def step(self, loss: Any = None, samples: int | None = None) -> None:
        """End the current step, for loops without an optimizer object; elsewhere it confirms the boundary.

        Args:
            loss: loss of this step.
            samples: number of samples in it.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        session = self._open()
        if session.attachment.here:
            session.step(loss, samples)
            self._call_back()

    def epoch(self, **metrics: Any) -> None:
        """End the epoch, with its validation metrics if there are any.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        session = self._open()
        if session.attachment.here:
            session.epoch(metrics)
            self._call_back()

    def batches(self, loader: Iterable[T]) -> Batches[T]:
        """Iterate over a loader and record how long the training waits for it, batch sizes and epochs.

        Each complete iteration with training steps in it is one epoch, whether or not :meth:`epoch` is called.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        return Batches(loader, self._open(), self._call_back)

    # ------------------------------------------------------------------ what the loop can ask

    @property
    def path(self) -> Path:
        """The run file; before the run starts, the wanted one."""
        return self._wanted if self._session is None else self._session.recorder.writer.path

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All alerts so far, oldest first; each is in the run file already."""
        return () if self._session is None else tuple(self._session.recorder.alerts)

    @property
    def health_score(self) -> int:
        """Health score so far, 0 to 100."""
        return 100 if self._session is None else self._session.recorder.health_score

    @property
    def should_stop(self) -> bool:
        """Whether ``stop_on`` has come true."""
        if self._session is None or self._stop_on is None:
            return False
        recorder = self._session.recorder
        return (
            recorder.critical if self._stop_on == "critical" else recorder.health_score < float(self._stop_on)
        )

    def _open(self) -> _Session:
        if self._session is None or self._closed:
            state = "closed" if self._closed else "not open yet"
            raise WatcherClosed(f"this watcher is {state}: use it inside its `with Watcher(...)` block")
        return self._session

    def _call_back(self) -> None:
        if self._session is not None:
            self._session.call_back()


class Batches(Generic[T]):
    """A loader whose batches are timed and counted. ``len()`` is the loader's."""

    def __init__(self, loader: Iterable[T], session: _Session, call_back: Callable[[], None]) -> None:
        self._loader, self._session, self._call_back = loader, session, call_back

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[T]:
        attachment = self._session.attachment
        self._session.begin_epoch()
        started = attachment.clock()
        for item in self._loader:
            if attachment.here:
                attachment.fetched(attachment.clock() - started, batch_size(item))
            yield item
            self._call_back()
            started = attachment.clock()


class _Session:
    """Everything that lives between enter and exit; holds no reference to the watcher."""

    def __init__(self, watcher: Watcher, model: torch.nn.Module) -> None:
        config = watcher.config
        writer = RunWriter(_rank_path(watcher._wanted))
        header = _header(watcher, model, writer.path)
        sinks = watcher._sinks if watcher._sinks is not None else _default_sinks(config)
        self._on_alert = watcher._on_alert
        self._pid = os.getpid()
        self._ended = False
        self._in_epoch = False
        self._notes: list[tuple[str, str]] = []
        start = time.perf_counter()
        self._guard = Guard(_say_weakly(weakref.ref(self)))
        pending: list[Any] = []
        self.attachment = Attachment(model, config, pending.append, self._guard, watcher._scaler)
        self.recorder = Recorder(
            writer,
            header,
            Engine(watcher._selection),
            config,
            self.attachment.probes,
            sinks,
            lambda: time.perf_counter() - start,
        )
        self.attachment.emit = self.recorder.put
        if writer.path.name != _rank_path(watcher._wanted).name:
            self.say("path", f"{watcher._wanted} exists already: this run is written to {writer.path}")
        self.recorder.start()
        self.attachment.enter()
        if watcher._optimizer is not None:
            self.attachment.patient.held_by(watcher._optimizer)

    def say(self, topic: str, message: str) -> None:
        """A note of ours, for file and sinks."""
        self.recorder.put(Note(topic=topic, message=message))

    def log(self, values: Mapping[str, Any]) -> None:
        """Sort values into the step's and the evaluation's."""
        started = self.attachment.clock()
        with self._guard("log"), torch.no_grad():
            evaluated = {k: v for k, v in values.items() if is_evaluation(k)}
            self._log_step({k: v for k, v in values.items() if k not in evaluated})
            if evaluated:
                self.attachment.close_step()
                self._mark("eval", self._usable(evaluated))
                self.attachment.restart_clock()
        self.attachment.spent(self.attachment.clock() - started)

    def _log_step(self, values: Mapping[str, Any]) -> None:
        if not values:
            return
        usable = self._usable(values)
        newest = next(
            (v for v in values.values() if isinstance(v, torch.Tensor) and v.grad_fn is not None), None
        )
        self.attachment.log(usable, newest)

    def _usable(self, values: Mapping[str, Any]) -> dict[str, torch.Tensor | float]:
        usable, refused = as_logged(values)
        for name in refused:
            self.say("log", f"{name!r} is not a number or a tensor of numbers and was not logged")
        return usable

    def step(self, loss: Any, samples: int | None) -> None:
        """A boundary that the loop names."""
        with self._guard("log"):
            if loss is not None:
                self.attachment.log_now(self._usable({"loss": loss}))
        with self._guard("step"):
            self.attachment.boundary(samples)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """The epoch ends."""
        with self._guard("epoch"), torch.no_grad():
            self.attachment.close_step()
            self._mark("epoch", self._usable(metrics))
            self.attachment.epoch += 1
            self.attachment.steps_in_epoch = 0
            self._in_epoch = False
            self.attachment.restart_clock()

    def begin_epoch(self) -> None:
        """An iteration over the loader begins: the one before ends, if it trained and was not ended yet."""
        with self._guard("epoch"):
            if self._in_epoch:
                self.attachment.close_step()
                if self.attachment.steps_in_epoch:
                    self.epoch({})
            self._in_epoch = True
            self.attachment.close_step()
            self.attachment.restart_clock()

    def _mark(self, kind: str, values: Mapping[str, torch.Tensor | float]) -> None:
        attachment = self.attachment
        frame = Frame(attachment.steps, sampled=False)
        entries = {k: frame.defer(v) if isinstance(v, torch.Tensor) else float(v) for k, v in values.items()}
        frame.seal()
        self.recorder.put(Mark(kind, frame, attachment.epoch, attachment.now(), entries))

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
        self.attachment.leave()
        if self._in_epoch and self.attachment.steps_in_epoch:
            self._mark("epoch", {})
        self.recorder.stop(outcome)
        problem = self.recorder.writer.problem
        if problem is not None and not self.recorder.writer.complete:
            warnings.warn(f"torchwatch: {problem}", RuntimeWarning, stacklevel=4)

    @staticmethod
    def abandon(session: _Session) -> None:
        """The watcher went away without an exit."""
        session.end(Outcome("interrupted"))


def _say_weakly(reference: weakref.ref[_Session]) -> Callable[[str, str], None]:
    def say(collector: str, message: str) -> None:
        session = reference()
        if session is not None:
            session.say(collector, message)

    return say


def _outcome(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> Outcome:
    if kind is None:
        return Outcome("finished")
    if not issubclass(kind, Exception):
        return Outcome("interrupted", kind.__name__)
    lines = traceback.format_exception(kind, error, trace)
    return Outcome("crashed", f"{kind.__name__}: {error}", "".join(lines)[-20_000:])


def _stop_rule(rule: str | float | None) -> str | float | None:
    if rule is None or rule == "critical":
        return rule
    if isinstance(rule, bool) or not isinstance(rule, (int, float)) or not 0 < rule <= 100:
        raise ConfigError(f"stop_on must be 'critical' or a health score between 0 and 100, not {rule!r}")
    return float(rule)


def _default_path(model: torch.nn.Module) -> Path:
    moment = datetime.datetime.now(datetime.UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{moment}-{type(model).__name__.lower()}.jsonl"


def _rank_path(path: Path) -> Path:
    rank = _rank()[0]
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def _rank() -> tuple[int, int]:
    """Rank and world size as launchers say them in the environment."""
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1


def _default_sinks(config: WatchConfig) -> list[Sink]:
    from torchwatch.sinks.logfile import LogFileSink
    from torchwatch.sinks.terminal import TerminalSink

    if config.terminal:
        return [TerminalSink(log_file=config.log_file)]
    return [LogFileSink(config.log_file)] if config.log_file else []


def _header(watcher: Watcher, model: torch.nn.Module, path: Path) -> RunHeader:
    rank, world = _rank()
    extra = dict(watcher._header)
    extra["name"] = extra["name"] or path.stem
    lazy = torch.nn.parameter.UninitializedParameter
    return RunHeader(
        run_id=uuid.uuid4().hex[:12],
        time=datetime.datetime.now(datetime.UTC).astimezone().isoformat(timespec="seconds"),
        torchwatch=torchwatch.__version__,
        rank=rank,
        world=world,
        pid=os.getpid(),
        model=type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters() if not isinstance(p, lazy)),
        software={
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        device=_device(model),
        config=watcher.config.as_json(),
        limits=watcher._selection.limits(),
        ignore=list(watcher._selection.ignored),
        **extra,
    )


def _device(model: torch.nn.Module) -> dict[str, Any]:
    used = sorted({str(p.device) for p in model.parameters()})
    device: dict[str, Any] = {
        "parameters_on": used,
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "main_thread": threading.current_thread() is threading.main_thread(),
    }
    if any(d.startswith("cuda") for d in used):
        device["cuda"] = torch.cuda.get_device_name()
    return device
