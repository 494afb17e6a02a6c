"""One line in a Hugging Face ``Trainer``: ``callbacks=[WatcherTrainerCallback()]``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from torchwatch.errors import UsageError
from torchwatch.header import rank_and_world, rank_path
from torchwatch.watcher import Watcher
from torchwatch_integrations._guest import Guest, Hosts, config_of, go_on_from, newest, require, say
from torchwatch_integrations._loop import Loop, left_by
from torchwatch_integrations._recording import Recording

require("transformers", "5.0")

from transformers import (  # noqa: E402 - what is required stands above
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

_TRAIN = Loop(inspect.unwrap(Trainer.train).__code__, "trainer.train()")
_KEPT = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "label_smoothing_factor",
    "bf16",
    "fp16",
    "torch_compile",
    "seed",
)
"""Of the training arguments, those that explain how a training went."""


class WatcherTrainerCallback(TrainerCallback):
    """Watches the model of a ``transformers.Trainer`` while it is trained.

    ::

        trainer = Trainer(model, args, train_dataset=…, callbacks=[WatcherTrainerCallback()])
        trainer.train()

    Each ``trainer.train()`` is one run file. Its steps have the numbers of ``state.global_step``, its epochs
    end with the trainer's, and what ``evaluate`` measures is in it. The loss of each step is the one that the
    model returns, added up over an accumulation as the Trainer does; where the model returns none
    (``compute_loss_func``, label smoothing), it is what the Trainer logs, every ``logging_steps``. (That is a
    mean, and with ``logging_nan_inf_filter`` the Trainer takes NaN out of it.)

    A training that resumes from a checkpoint gets a file of its own, next to that of the steps before, whose
    name is in its header (``resumed_from``), with the step (``resumed_at_step``).

    When ``trainer.train()`` raises, the run ends as crashed within a second, with the traceback if nobody
    catches the exception, or if the callback is entered around it::

        with WatcherTrainerCallback() as watching:
            Trainer(model, args, callbacks=[watching], …).train()

    Args:
        path: run file (default ``torchwatch.jsonl`` in ``args.output_dir``). An existing one is left alone:
            the name gets a number.
        options: keywords of :class:`torchwatch.Watcher`. With ``stop_on`` the Trainer is asked to stop after
            the step at which it comes true; one process only, since others would go on without this one.

    Attributes:
        watch: the watcher of the training in progress or, after it, of the last one; None before the first.

    Raises:
        MissingExtra: on import, without transformers or with one that is too old.
        ConfigError: an unknown check, limit or option.
        TypeError: an unknown keyword.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        Watcher(torch.nn.Identity(), path, **options)  # opens nothing, refuses what it does not know
        self._path = None if path is None else Path(path)
        self._options = options
        self._guest = Guest(type(self).__name__)
        self._recording: Recording | None = None
        self.watch: Watcher | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    # ------------------------------------------------------------------ what the trainer tells

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach; a training before that did not come to its end has ended."""
        if self._recording is not None:
            self._end(left_by(_TRAIN))
        self._guest = Guest(type(self).__name__)
        self._guest.start(self._begin, args, state, kwargs.get("model"), kwargs.get("optimizer"))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The epoch before is over, with all its evaluations."""
        self._tell("epoch_begins")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The batches of the step have been fetched."""
        self._tell("fetched")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All passes of the step are done."""
        self._tell("passes_done")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """The step is done."""
        return self._stopped(state, control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Metrics of the user's, and the loss where the model does not show it."""
        self._tell("logged", logs or {})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """An evaluation is done."""
        self._tell("evaluated", metrics or {})
        return self._stopped(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A checkpoint was written: waiting for data begins now."""
        self._tell("idle")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The epoch ends once its evaluations, which follow now, are done."""
        self._tell("epoch_ends")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Detach, write the end."""
        self._tell("epoch_begins")
        self._end(None)

    # ------------------------------------------------------------------ what is done about it

    def _begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        model: Any,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            return
        if self._options.get("stop_on") is not None and rank_and_world()[1] > 1:
            raise UsageError(
                "stop_on works in trainings of one process, since ranks would stop at different steps and "
                "wait for each other for ever: leave it out"
            )
        path = self._path or Path(args.output_dir or ".") / "torchwatch.jsonl"
        before = newest(rank_path(path)) if state.global_step else None
        given = dict(self._options)
        told = {name: _plain(getattr(args, name)) for name in _KEPT if hasattr(args, name)}
        if state.global_step:
            told |= {"resumed_from": before and str(before), "resumed_at_step": state.global_step}
        given["hyperparameters"] = told | dict(given.get("hyperparameters") or {})
        given["config"] = config_of(given, planned_steps=state.max_steps if state.max_steps > 0 else None)
        if given.get("on_alert") is not None:
            given["on_alert"] = Hosts(given["on_alert"])
        given.setdefault("optimizer", getattr(optimizer, "optimizer", optimizer))
        given.setdefault("scaler", getattr(optimizer, "scaler", None))
        watch = Watcher(model, path, **given)
        self._recording = Recording(watch, _TRAIN, _factor(model, args))
        self.watch = self._guest.watch = watch
        go_on_from(watch, state.global_step, int(state.epoch or 0))
        if state.global_step:
            where = (
                f"the steps before are in {before}" if before else f"there is no run file of them at {path}"
            )
            say(watch, "resumed", f"resumed at step {state.global_step}: {where}")

    def _tell(self, event: str, *told: Any) -> Any:
        """Tell the recording, if one is open; what it answers."""
        recording = self._recording
        if recording is None or recording.ended:
            return None
        return self._guest.call(getattr(recording, event), *told)

    def _stopped(self, state: TrainerState, control: TrainerControl) -> TrainerControl:
        """The control, with the wish to stop in it when ``stop_on`` has come true."""
        if self._tell("wants_to_stop", state.global_step):
            control.should_training_stop = True
        return control

    def _end(self, error: BaseException | None) -> None:
        """Also after the adapter was switched off."""
        recording, self._recording = self._recording, None
        if recording is not None:
            Guest(type(self).__name__).call(recording.end, error)


def _factor(model: torch.nn.Module, args: TrainingArguments) -> int | None:
    """How the Trainer makes one loss of several passes; see :class:`Recording`.

    A model that takes keywords is given the number of items in the whole step and divides by it: its losses
    add up (and over the processes, where the Trainer averages over their tokens). Other losses are averaged.
    """
    unwrap = getattr(model, "get_base_model", None)
    base = model if unwrap is None else unwrap()
    parameters = inspect.signature(type(base).forward).parameters.values()
    takes = getattr(base, "accepts_loss_kwargs", any(p.kind is p.VAR_KEYWORD for p in parameters))
    if not takes or not any(p.name == "labels" for p in parameters):
        return None
    return max(args.world_size, 1) if args.average_tokens_across_devices else 1


def _plain(value: Any) -> Any:
    """An enumeration as its value; all else is plain already."""
    return getattr(value, "value", value)
