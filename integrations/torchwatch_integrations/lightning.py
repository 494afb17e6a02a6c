"""One line in a Lightning ``Trainer``: ``callbacks=[WatcherCallback()]``.

Longer than a file should be: the callback's arguments and what each of them means stand in one place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchwatch.config import WatchConfig
from torchwatch.records import Alert
from torchwatch.sinks.named import chosen, default_sinks
from torchwatch.watcher import Watcher
from torchwatch_integrations._guest import Guest, Hosts, config_of
from torchwatch_integrations._lightning_base import callback_bases
from torchwatch_integrations._lightning_loggers import ForLoggers, show_pictures
from torchwatch_integrations._lightning_recording import FitRecording

if TYPE_CHECKING:
    from torchwatch.postmortem import Examined
    from torchwatch_integrations._lightning_autopsy import EarlyStops, Plan

_LOGGER = logging.getLogger("torchwatch")
_KEPT = (
    "max_epochs",
    "max_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "overfit_batches",
    "ckpt_path",
)
"""Of the trainer's settings, those that explain how a training went."""


class WatcherCallback(*callback_bases()):  # type: ignore[misc] # whichever of the two was imported, or both
    """Watches the module of a Lightning ``Trainer`` while it is fitted; an autopsy at the end if asked for.

    ::

        trainer = Trainer(max_epochs=20, callbacks=[WatcherCallback()])
        trainer.fit(module, datamodule)

    It is a callback of ``lightning`` and of ``pytorch_lightning``, whichever was imported before. All
    arguments but ``on_alert`` and ``val_dataloader`` are plain values, for YAML of LightningCLI.

    Each ``fit`` is one run file. Its steps have the numbers of ``trainer.global_step`` (with several
    optimizers, one step of each is one here), its epochs end with the trainer's, and what validation
    measures is in it, with a ``val_`` in front of names that have none; the sanity check is not. The loss of
    a step is what ``training_step`` returns.

    **Autopsy**: once after ``fit``, when the training has come to its end or was stopped early, of the best
    checkpoint if a ``ModelCheckpoint`` has one, else of the weights in memory; on rank zero, never in a
    ``fast_dev_run`` nor after an exception. If it fails, that is logged and nothing else happens.

    Args:
        path: run file (default ``torchwatch.jsonl`` in ``trainer.log_dir``). An existing one is left alone:
            the name gets a number.
        enabled: False: do nothing at all.
        stop_on: ask the Trainer to stop when this comes true: ``"critical"``, or a health score below this
            number. Of several processes, at the end of an epoch, when it has come true in one of them.
        log_to_logger: give the trainer's loggers numbers under ``torchwatch/`` (at most once a second),
            alerts where they take text, and the plots of the autopsy where they take images.
        config: a :class:`torchwatch.WatchConfig`, or its fields by name.
        budget, limits, ignore, sinks, name, hyperparameters, recipe, on_alert: as for
            :class:`torchwatch.Watcher`. What ``module.hparams`` holds is in the header as well.
        run_on_training_end: an autopsy at the end of the training, also an early one (default: only with
            ``diagnostics``).
        run_on_early_stop: an autopsy after early stopping (default: only with ``diagnostics``).
        diagnostics: names of examinations (default: all that apply).
        output_dir: folder of the report (default ``autopsy`` in ``trainer.log_dir``).
        save_plots: keep the plots as PNG files, which ``report.md`` shows; ``report.html`` has them inside.
        generate_report: write ``report.html`` and ``report.md`` besides ``report.json``.
        num_samples: how many samples are examined.
        ig_n_steps: steps of Integrated Gradients.
        ig_baseline: ``zero``, ``mean``, ``random`` or ``blur``.
        target_layers: layers for layer attributions (default: first, middle and last).
        time_limit_s: after it no examination starts (s); by default half of what processes that wait for rank
            zero have patience for. None: no limit.
        val_dataloader: what is examined (default: what the trainer validates on).

    Attributes:
        watch: the watcher of the fit in progress or, after it, of the last one; None before the first.
        examined: what the last autopsy found; None if there was none.
        autopsy_reason: ``early_stop`` or ``training_end``, of the last autopsy; None if there was none.

    Raises:
        MissingExtra: on import, without Lightning or with one that is too old.
        ConfigError, UsageError: an unknown check, limit, option, examination or baseline.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        enabled: bool = True,
        stop_on: float | str | None = None,
        log_to_logger: bool = True,
        config: WatchConfig | dict[str, Any] | None = None,
        budget: float | None = None,
        limits: dict[str, dict[str, Any]] | None = None,
        ignore: list[str] | None = None,
        sinks: list[Any] | None = None,
        name: str | None = None,
        hyperparameters: dict[str, Any] | None = None,
        recipe: str | None = None,
        on_alert: Callable[[Alert], Any] | None = None,
        run_on_training_end: bool | None = None,
        run_on_early_stop: bool | None = None,
        diagnostics: list[str] | None = None,
        output_dir: str | None = None,
        save_plots: bool = True,
        generate_report: bool = True,
        num_samples: int = 500,
        ig_n_steps: int = 50,
        ig_baseline: str = "zero",
        target_layers: list[str] | None = None,
        time_limit_s: float | None = 900.0,
        val_dataloader: Any = None,
    ) -> None:
        super().__init__()
        self._path = None if path is None else Path(path)
        self._enabled, self._stop_on, self._log_to_logger = enabled, stop_on, log_to_logger
        self._options: dict[str, Any] = {
            "config": config if isinstance(config, WatchConfig) else WatchConfig(**(config or {})),
            "budget": budget,
            "limits": limits,
            "ignore": ignore,
            "name": name,
            "hyperparameters": hyperparameters,
            "recipe": recipe,
            "on_alert": on_alert,
            "stop_on": stop_on,
        }
        self._sinks, self._val_dataloader = sinks, val_dataloader
        Watcher(torch.nn.Identity(), path, **self._options)  # opens nothing, refuses what it does not know
        asked = diagnostics is not None
        self._plan = _plan(
            at_training_end=asked if run_on_training_end is None else run_on_training_end,
            at_early_stop=asked if run_on_early_stop is None else run_on_early_stop,
            diagnostics=None if diagnostics is None else tuple(diagnostics),
            output_dir=None if output_dir is None else Path(output_dir),
            save_plots=save_plots,
            generate_report=generate_report,
            num_samples=num_samples,
            ig_n_steps=ig_n_steps,
            ig_baseline=ig_baseline,
            target_layers=tuple(target_layers or ()),
            time_limit_s=time_limit_s,
        )
        self.watch: Watcher | None = None
        self.examined: Examined | None = None
        self.autopsy_reason: str | None = None
        self._recording: FitRecording | None = None
        self._loggers: ForLoggers | None = None
        self._early: EarlyStops | None = None
        self._trained = False
        self._guest, self._loggers_guest = self._guests()

    # ------------------------------------------------------------------ what the trainer tells

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach."""
        if self._enabled:
            self._end(trainer, None)
            self._guest, self._loggers_guest = self._guests()
            self._trained, self._early, self.examined, self.autopsy_reason = False, None, None, None
            self._guest.start(self._begin, trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Checkpoints are loaded and the sanity check is over."""
        self._tell("train_starts", trainer.global_step, trainer.current_epoch)
        if self._enabled and self._plan is not None:
            self._guest.call(self._remember, trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """The epoch before is over, with all its metrics."""
        if self._trained:
            self._tell("epoch_is_over", trainer.callback_metrics)
        else:
            self._tell("idle")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch was fetched."""
        self._tell("batch_starts", batch)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A batch is done; a step is, unless gradients are accumulated."""
        self._trained = True
        scale = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._tell("batch_ends", outputs, scale, trainer.global_step)
        if self._loggers is not None:
            self._loggers_guest.call(self._loggers.hand_on, trainer.loggers)
        if self._stop_on is not None and trainer.world_size == 1:
            self._stop_if_wanted(trainer, together=False)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation begins."""
        if self._recording is not None and not trainer.sanity_checking:
            self._tell("validation_starts", trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """An evaluation is done."""
        if self._recording is not None and not trainer.sanity_checking:
            self._guest.call(self._validated, trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Processes agree whether to stop; the metrics of the epoch are not complete yet."""
        if self._enabled and self._stop_on is not None and trainer.world_size > 1:
            self._stop_if_wanted(trainer, together=True)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """A checkpoint is about to be written."""
        self._tell("saving")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Detach, write the end."""
        if self._recording is not None:
            self._tell("epoch_is_over", trainer.callback_metrics)
            self._guest.call(self._note_early_stop, trainer)
        self._end(trainer, None)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """All callbacks have seen the end of the training, so that the best checkpoint is known."""
        self._end(trainer, None)
        if self._enabled and self._plan is not None and self._trained and not trainer.fast_dev_run:
            self._examine_once(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The training is over by an exception, or by Ctrl-C."""
        self._end(trainer, exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Whatever happened, nothing stays attached."""
        self._end(trainer, None)

    def __getstate__(self) -> dict[str, Any]:
        """For launchers that start processes: what is under way stays behind."""
        under_way = {"watch", "_recording", "_loggers", "_early", "examined"}
        kept = {name: None if name in under_way else value for name, value in vars(self).items()}
        kept["_guest"], kept["_loggers_guest"] = self._guests()
        return kept

    # ------------------------------------------------------------------ what is done about it

    def _guests(self) -> tuple[Guest, Guest]:
        """Two guards: a logger that fails does not end the recording."""
        name = type(self).__name__
        return Guest(name), Guest(f"log_to_logger of {name}")

    def _begin(self, trainer: Any, module: Any) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # asked in all processes, since they agree on it
        given = dict(self._options)
        told = _told(trainer, module) | (given["hyperparameters"] or {})
        steps = trainer.max_steps if trainer.max_steps > 0 else None
        given |= {"hyperparameters": told, "config": config_of(given, planned_steps=steps)}
        given["sinks"] = self._with_loggers(trainer, given["config"])
        if given["on_alert"] is not None:
            given["on_alert"] = Hosts(given["on_alert"])
        optimizers = trainer.optimizers
        given["optimizer"] = optimizers[0] if len(optimizers) == 1 else None
        given["scaler"] = getattr(trainer.precision_plugin, "scaler", None)
        watch = Watcher(module, self._path or Path(folder) / "torchwatch.jsonl", **given)
        self._recording = FitRecording(watch, len(optimizers))
        self.watch = self._guest.watch = self._loggers_guest.watch = watch

    def _with_loggers(self, trainer: Any, config: WatchConfig) -> list[Any] | None:
        """The sinks, with one more for the trainer's loggers."""
        self._loggers = None
        usual = chosen(self._sinks, config)
        if (
            not self._log_to_logger
            or not trainer.loggers
            or trainer.fast_dev_run
            or not trainer.is_global_zero
        ):
            return usual
        self._loggers = ForLoggers()
        return [*(default_sinks(config) if usual is None else usual), self._loggers]

    def _tell(self, event: str, *told: Any) -> Any:
        """Tell the recording, if one is open; what it answers."""
        if self._recording is None:
            return None
        return self._guest.call(getattr(self._recording, event), *told)

    def _validated(self, trainer: Any) -> None:
        if self._recording is not None:
            self._recording.validation_ends(trainer.callback_metrics, ends_epoch=trainer.is_last_batch)

    def _stop_if_wanted(self, trainer: Any, *, together: bool) -> None:
        wants = bool(self._tell("wants_to_stop"))
        if together:  # not guarded: where one process does not take part, the others wait for ever
            wants = trainer.strategy.reduce_boolean_decision(wants, all=False)
        if wants:
            trainer.should_stop = True
            self._tell("asked_to_stop", trainer.global_step)

    def _remember(self, trainer: Any) -> None:
        from torchwatch_integrations._lightning_autopsy import EarlyStops

        self._early = EarlyStops(trainer.callbacks)

    def _note_early_stop(self, trainer: Any) -> None:
        message = None if self._early is None else self._early.message(should_stop=trainer.should_stop)
        if message is not None and self._recording is not None:
            self._recording.note("early_stop", message)

    def _end(self, trainer: Any, error: BaseException | None) -> None:
        """Also after the adapter was switched off."""
        recording, self._recording = self._recording, None
        if recording is None:
            return
        Guest(type(self).__name__).call(recording.end, error, trainer.global_step)
        loggers, self._loggers = self._loggers, None
        if loggers is not None:
            self._loggers_guest.call(loggers.hand_on, trainer.loggers)
            self._loggers_guest.call(loggers.conclude, trainer.loggers)

    # ------------------------------------------------------------------ the autopsy

    def _examine_once(self, trainer: Any, module: Any) -> None:
        self._trained = False
        folder = trainer.log_dir or trainer.default_root_dir  # asked in all processes, since they agree on it
        if trainer.is_global_zero:
            Guest(f"the autopsy of {type(self).__name__}").call(self._examine, trainer, module, folder)

    def _examine(self, trainer: Any, module: Any, folder: str) -> None:
        from torchwatch_integrations import _lightning_autopsy as autopsy

        plan = self._plan
        message = None if self._early is None else self._early.message(should_stop=trainer.should_stop)
        reason = autopsy.TRAINING_END if message is None else autopsy.EARLY_STOP
        if plan is None or not plan.wants(reason):
            return
        self.autopsy_reason = reason
        out = plan.output_dir or Path(folder) / "autopsy"
        run = None if self.watch is None or not self.watch.path.is_file() else self.watch.path
        given = self._val_dataloader
        self.examined = autopsy.examine(trainer, module, plan, out, reason=reason, run=run, val_data=given)
        _LOGGER.info("autopsy (%s) written to %s", reason, out)
        if self._log_to_logger and trainer.loggers:
            self._loggers_guest.call(show_pictures, out, trainer.loggers, trainer.global_step)
        autopsy.tidy(out, plan)


def _plan(**wanted: Any) -> Plan | None:
    """What the autopsy is to be; None if there is none, so that nothing of it is imported."""
    if not wanted["at_training_end"] and not wanted["at_early_stop"]:
        return None
    from torchwatch_integrations._lightning_autopsy import Plan

    return Plan(**wanted)


def _told(trainer: Any, module: Any) -> dict[str, Any]:
    """The trainer's settings and the module's hyperparameters, as far as they are plain values."""
    settings = {name: getattr(trainer, name, None) for name in _KEPT}
    values = settings | dict(module.hparams)
    return {str(k): v for k, v in values.items() if isinstance(v, (bool, int, float, str)) and v != -1}
