"""One ``fit`` of a Lightning Trainer: the watcher, entered, and what is kept from one event to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from torchwatch.recorder import is_evaluation
from torchwatch.watcher import Watcher
from torchwatch_integrations._guest import go_on_from, inside, say

_SEVERAL = (
    "{count} optimizers: a step is one of each of them here, while trainer.global_step counts every "
    "optimizer's steps"
)


class FitRecording:
    """What a watcher is told during one ``fit``.

    Args:
        watch: entered here.
        optimizers: how many the trainer has.
    """

    def __init__(self, watch: Watcher, optimizers: int) -> None:
        self._watch, self._alone = watch, optimizers == 1
        self._known: dict[str, Any] = {}
        self._of_epoch: dict[str, Any] = {}
        self._global_step = 0
        self._asked_to_stop = self._saved = False
        self._idle_since = 0.0
        watch.__enter__()
        if optimizers > 1:
            say(watch, "steps", _SEVERAL.format(count=optimizers))

    def train_starts(self, step: int, epoch: int) -> None:
        """The training begins or, after ``step`` steps and ``epoch`` epochs, goes on."""
        self._global_step = step
        if step and self._alone:
            go_on_from(self._watch, step, epoch)
        if step:
            say(self._watch, "resumed", f"resumed at step {step}")
        session = inside(self._watch)
        if session is not None:
            session.attachment.steps.restart_clock()  # loading data and the sanity check were no training
        self.idle()

    def idle(self) -> None:
        """What passes from now on until the next batch begins is waiting for data."""
        session = inside(self._watch)
        self._idle_since = session.attachment.clock() if session is not None else 0.0

    def saving(self) -> None:
        """A checkpoint is about to be written; nobody tells when it is: none of that is waiting for data."""
        self._saved = True

    def batch_starts(self, batch: Any) -> None:
        """A batch was fetched and moved to the device."""
        session = inside(self._watch)
        if session is None:
            return
        attachment = session.attachment
        waited_s = 0.0 if self._saved else attachment.clock() - self._idle_since
        self._saved = False
        attachment.fetched(batch, waited_s)

    def batch_ends(self, outputs: Any, scale: int, global_step: int) -> None:
        """A batch is done.

        Args:
            outputs: as callbacks are given them: a mapping with the detached ``loss``, in an accumulation
                divided by the number of its batches.
            scale: that number.
            global_step: how many steps the optimizers have made.
        """
        session = inside(self._watch)
        if session is None:
            return
        attachment = session.attachment
        started = attachment.clock()
        stepped, self._global_step = global_step > self._global_step, global_step
        if stepped and self._alone:
            self._count_skipped(global_step)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if isinstance(loss, torch.Tensor):
            with torch.no_grad():
                # A new tensor: others may change theirs before this one is read.
                values = session.usable({"loss": loss * scale if scale > 1 else loss})
            if stepped:
                attachment.steps.log_last(values)
            else:
                attachment.steps.log(values, None)
        self._idle_since = attachment.clock()
        attachment.steps.spent(self._idle_since - started)

    def _count_skipped(self, global_step: int) -> None:
        """A step that the trainer counts and the optimizer did not make: ``training_step`` gave no loss."""
        session = inside(self._watch)
        if session is not None and session.attachment.steps.now_in <= global_step:
            session.attachment.steps.close()
            session.attachment.step_without_optimizer()

    def validation_starts(self, metrics: Mapping[str, Any]) -> None:
        """An evaluation begins; ``metrics`` are those of before."""
        self._known = dict(metrics)

    def validation_ends(self, metrics: Mapping[str, Any], *, ends_epoch: bool) -> None:
        """An evaluation is done; what it measured are the new ones among ``metrics``."""
        measured = {_as_evaluation(name): value for name, value in self._fresh(metrics).items()}
        if ends_epoch:
            self._of_epoch |= measured
        elif measured:
            self._watch.log(**measured)
        self.idle()

    def epoch_is_over(self, metrics: Mapping[str, Any]) -> None:
        """Nothing more comes for the epoch: the next begins, or the training is over."""
        session = inside(self._watch)
        trained = {_plain(name): v for name, v in self._fresh(metrics).items() if not _is_copy(name, metrics)}
        of_epoch = {name: v for name, v in trained.items() if not is_evaluation(name)} | self._of_epoch
        self._of_epoch = {}
        steps = None if session is None else session.attachment.steps
        if steps is not None and (of_epoch or steps.in_epoch or steps.frame is not None or steps.lane.busy):
            self._watch.epoch(**of_epoch)
        self.idle()

    def wants_to_stop(self) -> bool:
        """Whether ``stop_on`` has come true."""
        return self._watch.should_stop

    def asked_to_stop(self, step: int) -> None:
        """The Trainer was asked to stop; said once."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            say(self._watch, "stop", f"stop_on has come true: the Trainer was asked to stop at step {step}")

    def note(self, topic: str, message: str) -> None:
        """A note in the run file."""
        say(self._watch, topic, message)

    def end(self, error: BaseException | None, global_step: int) -> None:
        """The training is over; a step that an exception left before the optimizer made it is none."""
        session = inside(self._watch)
        if error is not None and self._alone and session is not None:
            steps = session.attachment.steps
            if steps.frame is not None and steps.frame.number > global_step:
                steps.frame = None
        trace = None if error is None else error.__traceback__
        self._watch.__exit__(None if error is None else type(error), error, trace)

    def _fresh(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics that were computed since the last look: the trainer makes a new tensor of each."""
        fresh = {name: value for name, value in metrics.items() if self._known.get(name) is not value}
        self._known |= fresh
        return fresh


def _plain(name: str) -> str:
    """``val/loss`` as ``val_loss``, so that it is known to be of an evaluation."""
    return name.replace("/", "_")


def _is_copy(name: str, metrics: Mapping[str, Any]) -> bool:
    """The trainer has what is logged for steps and epochs under two names."""
    return name.endswith("_epoch") and name.removesuffix("_epoch") in metrics


def _as_evaluation(name: str) -> str:
    plain = _plain(name)
    return plain if is_evaluation(plain) else f"val_{plain}"
