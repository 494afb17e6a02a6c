"""``with Watcher(model):`` records what happens inside the network while it is trained."""

from __future__ import annotations

import datetime as dt
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch

from torchwatch.check import select
from torchwatch.config import WatchConfig
from torchwatch.errors import ConfigError, ModelError, WatcherClosed
from torchwatch.project import read_project
from torchwatch.recorder import Sink
from torchwatch.records import Alert
from torchwatch.session import Session, Wanted, outcome_of
from torchwatch.sinks.named import chosen

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
        limits: limits of checks, ``{"overfitting": {"patience": 5}}``; each beats the one in
            ``[tool.torchwatch.limits]`` of the working directory's ``pyproject.toml``.
        ignore: checks that are not to run, besides those that ``[tool.torchwatch]`` ignores.
        sinks: where records go as well: names such as ``"terminal"``, ``"webhook"``,
            ``"tensorboard:runs/tb"``, ``"wandb:project"``, ``"prometheus:9101"``, or objects with ``write``
            and ``close`` (default: alerts on standard error, and what ``TORCHWATCH_SINKS`` names).
        on_alert: called with each :class:`~torchwatch.records.Alert` in the training thread at the next step
            boundary; what it raises is yours.
        stop_on: when :attr:`should_stop` turns true: ``"critical"``, or a number: a health score below it.
        recipe: ``"train.py:build"``, a function that rebuilds model and data for a later autopsy. Recorded as
            text, never run by itself.
        budget: share of step time that watching may cost (default 0.01).

    Raises:
        ModelError: ``model`` is not a ``torch.nn.Module``.
        ConfigError: an unknown check, limit, option or sink.
        MissingExtra: a package that a sink needs is not installed.
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
        sinks: str | Iterable[str | Sink] | None = None,
        on_alert: Callable[[Alert], object] | None = None,
        stop_on: str | float | None = None,
        recipe: str | None = None,
        budget: float | None = None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise ModelError(f"a Watcher watches a torch.nn.Module, not {type(model).__name__}")
        ignored = None if ignore is None else (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self.config = (config or WatchConfig()).with_keywords(limits=limits, ignore=ignored, budget=budget)
        self._stop_on = _stop_rule(stop_on)
        self._model = weakref.ref(model)
        self._wanted = Wanted(
            path=Path(path) if path is not None else _default_path(model),
            config=self.config,
            selection=select(*read_project().under(self.config.limits, self.config.ignore)),
            name=name or "",
            hyperparameters=dict(hyperparameters or {}),
            recipe=recipe,
            sinks=chosen(sinks, self.config),
            on_alert=on_alert,
            optimizer=optimizer,
            scaler=scaler,
        )
        self._session: Session | None = None
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
            self._session = Session(model, self._wanted)
            weakref.finalize(self, Session.abandon, self._session)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth > 0 or self._session is None:
            return
        self._closed = True
        self._session.end(outcome_of(kind, error, trace))
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

        A mapping is logged per class: ``val_recall={"cat": 0.9}`` becomes ``val_recall.cat``, whatever the
        classes are called. Within an accumulation values are averaged. ``val_*``, ``valid_*``, ``eval_*`` and
        ``test_*`` write an evaluation record at once.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        session = self._session
        if session is None or self._closed:
            session = self._open()
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

        Each iteration with training steps in it is one epoch, whether or not :meth:`epoch` is called.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        return Batches(loader, self._open(), self._call_back)

    @contextmanager
    def profile(self) -> Iterator[None]:
        """Profile the body (a few steps) with ``torch.profiler``; a ``profile`` record is written.

        Nothing is profiled where a profiler runs already. With ``WatchConfig(profile_trace="traces/")`` the
        Chrome trace is kept as well.

        Raises:
            WatcherClosed: outside of the ``with`` block.
        """
        attachment = self._open().attachment
        if attachment.here:
            with attachment.profiled():
                yield
        else:
            yield

    # ------------------------------------------------------------------ what the loop can ask

    @property
    def path(self) -> Path:
        """The run file; before the run starts, the wanted one."""
        return self._wanted.path if self._session is None else self._session.recorder.writer.path

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

    def _open(self) -> Session:
        if self._session is None or self._closed:
            state = "closed" if self._closed else "not open yet"
            raise WatcherClosed(f"this watcher is {state}: use it inside its `with Watcher(...)` block")
        return self._session

    def _call_back(self) -> None:
        if self._session is not None:
            self._session.call_back()


class Batches(Generic[T]):
    """A loader whose batches are timed and counted. ``len()`` is the loader's."""

    def __init__(self, loader: Iterable[T], session: Session, call_back: Callable[[], None]) -> None:
        self._loader, self._session, self._call_back = loader, session, call_back

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[T]:
        attachment = self._session.attachment
        self._session.begin_epoch()
        started = attachment.clock()
        try:
            for item in self._loader:
                if attachment.here:
                    attachment.batch = item
                    attachment.fetched(item, attachment.clock() - started)
                yield item
                self._call_back()
                started = attachment.clock()
        finally:
            attachment.batch = None
        if attachment.here:
            self._session.batches_end()


def _stop_rule(rule: str | float | None) -> str | float | None:
    if rule is None or rule == "critical":
        return rule
    if isinstance(rule, bool) or not isinstance(rule, (int, float)) or not 0 < rule <= 100:
        raise ConfigError(f"stop_on must be 'critical' or a health score between 0 and 100, not {rule!r}")
    return float(rule)


def _default_path(model: torch.nn.Module) -> Path:
    moment = dt.datetime.now(dt.UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{moment}-{type(model).__name__.lower()}.jsonl"
