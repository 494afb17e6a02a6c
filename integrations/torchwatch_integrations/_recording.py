"""One training of a trainer that tells its callbacks of steps, logs, evaluations and epochs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any

from torchwatch.probes.loss import SHARE
from torchwatch.recorder import is_evaluation
from torchwatch.watcher import Watcher
from torchwatch_integrations._guest import inside, say
from torchwatch_integrations._loop import Loop, LoopWatch, left_by

_KNOWN = frozenset(
    {"loss", "grad_norm", "learning_rate", "epoch", "step", "total_flos", "num_input_tokens_seen"}
)
_OF_THE_MACHINE = ("_runtime", "_per_second", "_preparation_time", "_compilation_time")


class Recording:
    """One training: the watcher, entered, and what is kept from one event of the trainer to the next.

    Args:
        watch: entered here.
        loop: the trainer's function that trains, which tells nobody when an exception leaves it.
        factor: what the sum of the losses that the model returns in a step is multiplied with to be the loss
            that the trainer minimises; None: it is their mean.
    """

    def __init__(self, watch: Watcher, loop: Loop, factor: int | None = None) -> None:
        self._watch, self._factor = watch, factor
        self._epoch_metrics: dict[str, Any] | None = None
        self.ended = self._loss_seen = self._asked_to_stop = False
        self._ending = threading.Lock()
        watch.__enter__()
        me = weakref.ref(self)
        # Also at exit, and before the watcher's own: the latest made is called first.
        self._abandoned = weakref.finalize(self, _abandon, watch, loop)
        self._loop = LoopWatch(loop, lambda: _left(me, loop))
        self._loop.start()
        self.idle()

    def idle(self) -> None:
        """What passes from now on until the next step begins is waiting for data."""
        session = inside(self._watch)
        self._idle_since = session.attachment.clock() if session is not None else 0.0

    def fetched(self) -> None:
        """The batches of a step were fetched."""
        session = inside(self._watch)
        if session is not None:
            session.attachment.steps.fetched(session.attachment.clock() - self._idle_since, None)

    def passes_done(self) -> None:
        """Make one loss of those that the model returned; called before the optimizer steps."""
        session = inside(self._watch)
        if session is None:
            return
        pending = session.attachment.steps.pending
        of_passes = [source for name, source, _ in pending.logged if name == "loss"]
        self._loss_seen = self._loss_seen or bool(of_passes)
        if self._factor is None:
            return
        # Shares of a step's loss are added up by the probe, other losses are averaged there.
        factors = {SHARE: self._factor, "output": self._factor * len(of_passes)}
        pending.logged = [
            (name, source, value * factors.get(source, 1) if name == "loss" else value)
            for name, source, value in pending.logged
        ]

    def logged(self, logs: Mapping[str, Any]) -> None:
        """What the Trainer logs: it has read these numbers from the device already."""
        if "train_runtime" in logs:  # the summary of the whole training
            return
        values = {name: v for name, v in logs.items() if name not in _KNOWN and not _left_out(name, v)}
        loss = logs.get("loss")
        if loss is not None and not self._loss_seen:
            values["loss"] = loss
        self._loss_seen = False
        values = {name: v for name, v in values.items() if not is_evaluation(name)}  # on_evaluate has them
        if values:
            self._watch.log(**values)
        self.idle()

    def evaluated(self, metrics: Mapping[str, Any]) -> None:
        """The metrics of an evaluation: the epoch's if it has just ended, else of the step."""
        named = {
            name if is_evaluation(name) else f"eval_{name}": value
            for name, value in metrics.items()
            if name not in _KNOWN and not _left_out(name, value)
        }
        if self._epoch_metrics is not None:
            self._epoch_metrics |= named
        elif named:
            self._watch.log(**named)
        self.idle()

    def epoch_ends(self) -> None:
        """The last step of an epoch is done."""
        self._epoch_metrics = {}

    def epoch_begins(self) -> None:
        """Nothing more comes for the epoch before."""
        metrics, self._epoch_metrics = self._epoch_metrics, None
        if metrics is not None:
            self._watch.epoch(**metrics)
        self.idle()

    def wants_to_stop(self, step: int) -> bool:
        """Whether ``stop_on`` has come true; said once."""
        self.idle()
        if not self._watch.should_stop:
            return False
        if not self._asked_to_stop:
            self._asked_to_stop = True
            say(self._watch, "stop", f"stop_on has come true: the Trainer was asked to stop at step {step}")
        return True

    def end(self, error: BaseException | None) -> None:
        """The training is over. Once, whoever is first: the trainer, the thread that looks, or the exit."""
        with self._ending:
            ended, self.ended = self.ended, True
        if not ended:
            self._abandoned.detach()
            self._loop.stop()
            _exit(self._watch, error)


def _exit(watch: Watcher, error: BaseException | None) -> None:
    watch.__exit__(
        None if error is None else type(error), error, None if error is None else error.__traceback__
    )


def _abandon(watch: Watcher, loop: Loop) -> None:
    """The adapter went away, or the interpreter ends, within a training."""
    _exit(watch, left_by(loop))


def _left(reference: weakref.ref[Recording], loop: Loop) -> None:
    recording = reference()
    if recording is not None:
        recording.end(left_by(loop))


def _left_out(name: str, value: Any) -> bool:
    """What says how fast the machine was, and what is no number."""
    return name.endswith(_OF_THE_MACHINE) or "_mem_" in name or not isinstance(value, (int, float))
