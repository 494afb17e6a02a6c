"""Accelerate: ``with watch(accelerator, model) as watcher`` around a loop, and a tracker for ``log_with``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from torchwatch.errors import ModelError
from torchwatch.recorder import is_evaluation
from torchwatch.watcher import Watcher
from torchwatch_integrations._guest import Guest, Hosts, config_of, inside, require, say

require("accelerate", "1.10")

from accelerate import Accelerator  # noqa: E402 - what is required stands above
from accelerate.tracking import GeneralTracker  # noqa: E402 - as above

_LOGGER = logging.getLogger("torchwatch")
_COUNTERS = frozenset({"epoch", "step", "global_step"})
_LOSSES = ("train_loss", "training_loss")
_HOW = (
    "only what accelerator.log is given is recorded: wrap the loop in "
    "`with torchwatch_integrations.accelerate.watch(accelerator, model):` to see inside the model"
)


@contextmanager
def watch(
    accelerator: Accelerator,
    model: torch.nn.Module,
    path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Iterator[Watcher]:
    """Watch a model in a loop that uses Accelerate.

    ::

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        with watch(accelerator, model, "runs/digits.jsonl") as watcher:
            for x, y in watcher.batches(loader):
                with accelerator.accumulate(model):
                    loss = F.cross_entropy(model(x), y)
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                watcher.log(loss=loss)

    Micro-batches of an accumulation make one step, with the mean of what was logged in it. Every process
    writes its own file (``digits.rank1.jsonl`` …), the main one alone prints. A :class:`WatcherTracker` of
    this accelerator is found, and what ``accelerator.log`` is given goes into the same run.

    Args:
        accelerator: its ``GradScaler``, if it has one, makes skipped steps and the scale exact.
        model: prepared or not. Of one that is wrapped for data parallelism the model inside is watched.
        path: run file (default: the tracker's, or ``runs/<time>-<model>.jsonl``).
        options: keywords of :class:`torchwatch.Watcher`.

    Yields:
        The watcher, open.

    Raises:
        ModelError: ``model`` is not a ``torch.nn.Module``.
        ConfigError: an unknown check, limit or option.
        RunBusy, UsageError: the path cannot be used.
    """
    if not isinstance(accelerator, Accelerator):
        raise ModelError(
            f"watch(accelerator, model) needs an Accelerator first, not {type(accelerator).__name__}"
        )
    tracker = _tracker_of(accelerator)
    if tracker is not None:
        path = tracker.path if path is None else path
        options = tracker.with_hyperparameters(options)
        tracker.finish()  # what it recorded on its own, before it knew of a model
    options["config"] = config_of(options)
    options.setdefault("scaler", accelerator.scaler)
    optimizer = options.get("optimizer")
    options["optimizer"] = getattr(optimizer, "optimizer", optimizer)
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    with Watcher(inner, path, **options) as watcher:
        if tracker is None:
            yield watcher
            return
        tracker.follow(watcher)
        try:
            yield watcher
        finally:
            tracker.follow(None)


class WatcherTracker(GeneralTracker):  # type: ignore[misc] # Accelerate has no types
    """Records what ``accelerator.log`` is given: ``Accelerator(log_with=WatcherTracker())``.

    ::

        accelerator = Accelerator(log_with=WatcherTracker("runs/digits.jsonl"))
        accelerator.init_trackers("digits", config={"lr": 0.1})
        ...
        accelerator.log({"loss": loss.item()}, step=step)
        accelerator.end_training()

    Inside :func:`watch` of the same accelerator the values belong to the run of its watcher, and the
    configuration is in its header. Without it the tracker writes a run of its own, in which each call of
    ``accelerator.log`` is a step (the one that is told, if it is): the checks on the loss and on the machine
    work, those that look into the model do not run.

    Names with a slash have an underscore in the run, so that ``val/loss`` is known to be of an evaluation.
    Texts, and the counters ``epoch`` and ``step``, are left out.

    Args:
        path: run file (default ``runs/<time>-nomodel.jsonl``, or that of :func:`watch`).
        options: keywords of :class:`torchwatch.Watcher`.

    Raises:
        ConfigError: an unknown check, limit or option.
        TypeError: an unknown keyword.
    """

    name = "torchwatch"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        super().__init__()
        Watcher(torch.nn.Identity(), path, **options)  # opens nothing, refuses what it does not know
        self.path, self.options = path, options
        self.hyperparameters: dict[str, Any] = {}
        self._guest = Guest(type(self).__name__)
        self._followed: Watcher | None = None
        self._own: _MetricsOnly | None = None
        self._has_followed = False

    @property
    def tracker(self) -> Watcher | None:
        """The watcher into which values go, as ``accelerator.get_tracker("torchwatch", unwrap=True)``."""
        if self._followed is not None:
            return self._followed
        return None if self._own is None else self._own.watch

    def with_hyperparameters(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a watcher: these, before the tracker's own, with the configuration that it was told."""
        given = {**self.options, **options}
        given["hyperparameters"] = self.hyperparameters | dict(given.get("hyperparameters") or {})
        return given

    def follow(self, watcher: Watcher | None) -> None:
        """From now on values belong to this watcher's run; None: it is closed, and there is none."""
        self._followed = self._guest.watch = watcher
        self._has_followed = True

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Hyperparameters: for the header, or as a note in a run that has begun."""
        self._guest.call(self._configured, dict(values))

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Values of this step; those that are no numbers are left out."""
        self._guest.call(self._log, values, step)

    def finish(self) -> None:
        """The training is over; a run of :func:`watch` ends with its block."""
        own, self._own = self._own, None
        if own is not None:
            Guest(type(self).__name__).call(own.watch.close)  # also after the tracker was switched off

    def _configured(self, values: dict[str, Any]) -> None:
        self.hyperparameters |= values
        if self.tracker is not None:
            say(self.tracker, "hyperparameters", ", ".join(f"{name}={v}" for name, v in values.items()))

    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        numbers = {
            name.replace("/", "_"): value
            for name, value in values.items()
            if name not in _COUNTERS and not isinstance(value, str)
        }
        if self._followed is not None:
            self._followed.log(**numbers)
        elif self._has_followed:
            _LOGGER.warning("accelerator.log was called outside of the watch block: that is not recorded")
        else:
            if self._own is None:
                self._own = _MetricsOnly(self.path, self.with_hyperparameters({}))
                self._guest.watch = self._own.watch
            self._own.log(numbers, step)


class _MetricsOnly:
    """A run of what is logged, without a model.

    Args:
        path, options: as for :class:`torchwatch.Watcher`.
    """

    def __init__(self, path: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> None:
        self._model = NoModel()  # the watcher holds it weakly
        given = {**options, "config": config_of(options)}
        if given.get("on_alert") is not None:
            given["on_alert"] = Hosts(given["on_alert"])
        self.watch = Watcher(self._model, path, **given).__enter__()
        self._step: int | None = None
        say(self.watch, "model", _HOW)

    def log(self, values: Mapping[str, Any], step: int | None) -> None:
        """Values of a step, given or the next one; further calls about the same step add to it."""
        session = inside(self.watch)
        if session is None:
            return
        evaluated = {name: value for name, value in values.items() if is_evaluation(name)}
        trained = {name: value for name, value in values.items() if name not in evaluated}
        if trained:
            trained["loss"] = next((trained[name] for name in ("loss", *_LOSSES) if name in trained), None)
            attachment = session.attachment
            begins = step is None or step != self._step
            if begins:
                attachment.steps.close()
                attachment.steps.count = max(attachment.steps.count, (step or 0) - 1)
            self.watch.log(**trained)
            if begins:
                attachment.step_without_optimizer()
            self._step = step
        if evaluated:
            self.watch.log(**evaluated)
        session.call_back()


class NoModel(torch.nn.Module):
    """Stands in the header of a run of which only metrics are known."""


def _tracker_of(accelerator: Accelerator) -> WatcherTracker | None:
    """The tracker of ours among those of an accelerator, started or not."""
    known = (*accelerator.trackers, *accelerator.log_with)
    return next((tracker for tracker in known if isinstance(tracker, WatcherTracker)), None)
