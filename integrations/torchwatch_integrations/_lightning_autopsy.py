"""The autopsy at the end of a ``fit``: when, of which weights, on which data, and where its report goes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchwatch.errors import UsageError
from torchwatch.examinations.checkpoints import load_checkpoint
from torchwatch.examinations.examination import chosen
from torchwatch.postmortem import Examined, autopsy
from torchwatch.report.report import build_report
from torchwatch.report.write import write_autopsy, write_report
from torchwatch.results import Remark
from torchwatch.text import printable

EARLY_STOP, TRAINING_END = "early_stop", "training_end"
BASELINES = ("zero", "mean", "random", "blur")

_LOGGER = logging.getLogger("torchwatch")


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; fields as the arguments of ``WatcherCallback``.

    Raises:
        UsageError, ConfigError: something that there is not.
    """

    at_training_end: bool
    at_early_stop: bool
    diagnostics: tuple[str, ...] | None
    output_dir: Path | None
    save_plots: bool
    generate_report: bool
    num_samples: int
    ig_n_steps: int
    ig_baseline: str
    target_layers: tuple[str, ...]
    time_limit_s: float | None

    def __post_init__(self) -> None:
        if self.ig_baseline not in BASELINES:
            raise UsageError(f"ig_baseline is one of {', '.join(BASELINES)}, not {self.ig_baseline!r}")
        for name in ("num_samples", "ig_n_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}")
        if self.diagnostics is not None:
            chosen(self.diagnostics)

    def wants(self, reason: str) -> bool:
        """Whether there is to be an autopsy; an early stop is an end of the training as well."""
        return self.at_training_end or (self.at_early_stop and reason == EARLY_STOP)


class EarlyStops:
    """Whether an early-stopping callback of a trainer has stopped it, told by the callback's own state.

    Args:
        callbacks: of the trainer, before the training and after checkpoints were loaded: what an earlier
            training left in their state does not count.
    """

    def __init__(self, callbacks: list[Any]) -> None:
        self._before = [(callback, _state(callback)) for callback in callbacks if _stops(callback)]

    def message(self, *, should_stop: bool) -> str | None:
        """What the callback that stopped the training says of it; None if none did."""
        for callback, before in self._before:
            # The state is as before where an epoch of the same number stopped a training already.
            spent = should_stop and callback.wait_count >= callback.patience
            if _state(callback) != before or spent:
                message = getattr(callback, "stopping_reason_message", None)
                return message or f"{callback.monitor} did not improve in {callback.wait_count} records"
        return None


def _stops(callback: Any) -> bool:
    return all(hasattr(callback, name) for name in ("stopped_epoch", "wait_count", "patience", "monitor"))


def _state(callback: Any) -> tuple[Any, ...]:
    return callback.stopped_epoch, getattr(callback, "stopping_reason_message", None)


def examine(
    trainer: Any,
    module: Any,
    plan: Plan,
    out: Path,
    *,
    reason: str,
    run: Path | None,
    val_data: Any = None,
) -> Examined:
    """Examine the best weights of a training, and write the report.

    The module has its own weights again afterwards, whatever happens.

    Args:
        trainer: after the training.
        module: what it trained.
        plan: what was asked for.
        out: folder of the report.
        reason: ``early_stop`` or ``training_end``.
        run: the run file, None if there is none.
        val_data: what is examined (default: what the trainer validated on, else the data module's).

    Raises:
        UsageError: there are no validation data, or there is nothing to examine.
    """
    data = _validation(trainer, val_data)
    trained = getattr(trainer, "train_dataloader", None)
    patient, prefix = _patient(module)
    layers = tuple(name.removeprefix(prefix) for name in plan.target_layers)
    report = None if run is None else build_report(run)
    with _without_trainer(module), _best_weights(trainer, module) as whose:
        found = autopsy(
            patient,
            _Converted(data, trainer),
            train_data=None if trained is None else _Converted(trained, trainer),
            examine=plan.diagnostics,
            device=str(trainer.strategy.root_device),
            diagnosis=None if report is None else report.diagnosis,
            until_interrupted=True,
            samples=plan.num_samples,
            time_limit_s=plan.time_limit_s,
            ig_n_steps=plan.ig_n_steps,
            ig_baseline=plan.ig_baseline,
            target_layers=layers,
        )
    said = Remark("info", f"Examined at the end of a Lightning training ({reason}), {whose}.")
    about = dataclasses.replace(found.about, remarks=(said, *found.about.remarks))
    found = Examined(about, found.outcomes)
    for left in found.outcomes:
        if left.status == "failed":
            _LOGGER.warning("the examination %s failed: %s", left.name, left.reason)
    if report is None:
        write_autopsy(found, out)
    else:
        write_report(dataclasses.replace(report, autopsy=found), out)
    return found


def tidy(out: Path, plan: Plan) -> None:
    """Remove of a written report what was not asked for; ``report.json`` stays."""
    unwanted = [] if plan.generate_report else ["report.html", "report.md"]
    if not plan.save_plots:
        unwanted += ["report.md", *(p.name for p in out.glob("*.png"))]  # the plots of the one are the others
    for name in unwanted:
        (out / name).unlink(missing_ok=True)


def _patient(module: Any) -> tuple[torch.nn.Module, str]:
    """What is called with an input, and what its layers' names begin with in the module.

    A module without a ``forward`` of its own calls a part of it in its steps: that which has the parameters.
    """
    if getattr(type(module), "forward", None) not in _forwards_of_nobody(module):
        return module, ""
    parts = [(name, p) for name, p in module.named_children() if next(p.parameters(), None) is not None]
    if len(parts) != 1:
        raise UsageError(
            f"{type(module).__name__} has no forward(), so that nothing tells how its {len(parts)} parts "
            "make an output: define it"
        )
    name, part = parts[0]
    return part, f"{name}."


def _forwards_of_nobody(module: Any) -> list[Any]:
    """``forward`` of the classes above the user's: of LightningModule, and of torch's Module."""
    above = [c for c in type(module).__mro__ if c.__name__ == "LightningModule" or c is torch.nn.Module]
    return [getattr(c, "forward", None) for c in above]


def _validation(trainer: Any, given: Any) -> Any:
    """The validation loader: as given, else the trainer's, else the data module's; the first of several."""
    found = given if given is not None else trainer.val_dataloaders
    if found is None and trainer.datamodule is not None:
        found = trainer.datamodule.val_dataloader()
    while isinstance(found, (list, tuple, dict)) and found:
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    if found is None or isinstance(found, (list, tuple, dict)):
        raise UsageError("there are no validation data: give fit() a loader, or the callback val_dataloader=")
    return found


class _Converted:
    """A loader whose batches have the precision of the training (of ``64-true``: double)."""

    def __init__(self, loader: Any, trainer: Any) -> None:
        self._loader, self._convert = loader, trainer.precision_plugin.convert_input

    def __iter__(self) -> Iterator[Any]:
        return (self._convert(batch) for batch in self._loader)


@contextmanager
def _without_trainer(module: Any) -> Iterator[None]:
    """Copies of the module are made: not of the trainer that it refers to, with its loaders and loggers."""
    trainer = module.trainer
    module.trainer = None
    try:
        yield
    finally:
        module.trainer = trainer


@contextmanager
def _best_weights(trainer: Any, module: torch.nn.Module) -> Iterator[str]:
    """The best checkpoint's weights for the body, if there is one that can be loaded; says whose they are."""
    path = best_checkpoint(trainer)
    if path is None:
        yield "with the weights in memory, since there is no checkpoint"
        return
    kept = {name: value.detach().clone() for name, value in module.state_dict().items()}
    try:
        yield _loaded(module, path)
    finally:
        module.load_state_dict(kept)


def _loaded(module: torch.nn.Module, path: str) -> str:
    try:
        load_checkpoint(module, path, trust=True)  # this process has just written it
    except UsageError as error:
        _LOGGER.warning("the best checkpoint is left alone: %s", error)
        return f"with the weights in memory, since {printable(path)} could not be loaded"
    return f"with the weights of the best checkpoint, {printable(path)}"


def best_checkpoint(trainer: Any) -> str | None:
    """The best checkpoint of those that watch a metric, else of any; None where none was written."""
    having = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_path", "")]
    having.sort(key=lambda callback: callback.monitor is None)
    return having[0].best_model_path if having else None
