"""What travels from the training thread to the recorder, and how it becomes records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.codec import rounded_together
from torchwatch.intervals import tidy
from torchwatch.probe import Block, Frame, Later, Probe, Values
from torchwatch.records import STEP_COLUMNS, Layout, Log, Note, Record, Step

_EVALUATION = ("val_", "valid_", "validation_", "eval_", "test_")


@dataclass(frozen=True, slots=True)
class Mark:
    """An epoch's end or an evaluation, with values that may still be on the device (in ``frame``).

    ``step``: the step that it follows, where that is not recorded yet (default: the last that is).
    """

    kind: str
    frame: Frame
    epoch: int
    time_s: float
    values: dict[str, int | float] = field(default_factory=dict)
    step: int | None = None

    def metrics(self) -> dict[str, float | None]:
        """The values as numbers; a slot of the frame (int) is read, a float is itself."""
        arrays = self.frame.values()
        return {
            name: tidy(value if isinstance(value, float) else _mean(arrays[value]))
            for name, value in self.values.items()
        }


@dataclass
class Outcome:
    """How the host's ``with`` block ended."""

    status: str = "finished"
    error: str | None = None
    traceback: str | None = None
    log: Log | None = None


Item = Frame | Block | Later | Layout | Log | Mark | Note


def is_evaluation(name: str) -> bool:
    """Whether a metric's name says that it was measured in an evaluation."""
    return name.startswith(_EVALUATION)


def step_of(
    frame: Frame, probes: Mapping[str, type[Probe]], say: Callable[[str, str], None]
) -> tuple[Step, list[Record]]:
    """The record of a step, and the records of their own that probes made of it.

    A probe whose values cannot be read is named through ``say``; the step stays.
    """
    values = frame.values()
    fields: dict[str, Any] = dict(frame.fields)
    for name, payloads in frame.payloads.items():
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                fields |= probes[name].decode(payloads, values, frame)
        except Exception as error:  # noqa: BLE001 - one probe's values are missing, the step is not
            say(name, f"{name} could not be read: {type(error).__name__}: {error}")
    if frame.scalars_only:
        fields |= dict.fromkeys(STEP_COLUMNS)
    for name, payloads in frame.payloads.items():
        complete = probes[name].complete
        if complete is not Probe.complete:
            try:
                fields |= complete(fields, payloads, values, frame)
            except Exception as error:  # noqa: BLE001 - as above
                say(name, f"{name} could not be completed: {type(error).__name__}: {error}")
    preclip, norm = fields.get("grad_norm_preclip"), fields.get("grad_norm")
    if preclip is not None and norm is not None and math.isfinite(preclip):
        fields["clipped"] = norm < preclip * (1 - 1e-4)
    _round_columns(fields)
    others = [fields.pop(k) for k, v in tuple(fields.items()) if isinstance(v, Record)]
    started = frame.started_s
    step = Step(
        step=frame.number,
        epoch=frame.epoch,
        time_s=round(frame.ended_s, 6),
        step_time_s=None if started is None else round(frame.ended_s - started, 6),
        wait_time_s=None if frame.wait_s is None else round(frame.wait_s, 6),
        watch_time_s=round(frame.watch_s, 6),
        **{k: _tidied(v) for k, v in fields.items()},
    )
    return step, others


def _round_columns(fields: dict[str, Any]) -> None:
    """All columns to the digits that the file has, in one go."""
    names = [name for name in STEP_COLUMNS[:-1] if fields.get(name) is not None]
    layers = fields.get("activations") or {}
    parts = iter(rounded_together([*(fields[name] for name in names), *layers.values()]))
    for name in names:
        fields[name] = next(parts)
    if layers:
        fields["activations"] = {name: next(parts) for name in layers}


def steps_in(item: Item) -> int:
    """How many steps an item holds."""
    return len(item.ends) if isinstance(item, Block) else int(isinstance(item, Frame))


def ready(item: Item, *, wait: bool) -> bool:
    """Whether the values of an item can be read; ``wait``: make it so."""
    if not isinstance(item, (Frame, Block, Mark)):
        return True
    frame = item.frame if isinstance(item, Mark) else item
    if frame.ready():
        return True
    if wait:  # the run is over: nobody is held up
        frame.finish()
    return wait


def has_loss(frame: Frame) -> bool:
    """Whether a loss of the step was logged or seen."""
    return any(name == "loss" for name, *_ in frame.payloads.get("loss", ()))


def measured_kind(step: Step) -> str:
    """Which kind of step it was, in the budget's words."""
    if step.activations is not None or step.weight_norms is not None:
        return "sampled"
    return "plain" if step.grad_norms is None else "gradients"


def without_columns(step: Step) -> Step:
    """The step's scalars alone."""
    without: dict[str, Any] = dict.fromkeys(STEP_COLUMNS)
    return dataclasses.replace(step, **without)


def keeps_columns(step: Step, *, is_last: bool) -> bool:
    """On fast loops columns stay on sampled steps, on the last of a line, and where a norm is not finite."""
    norm = step.grad_norm
    return is_last or step.activations is not None or (norm is not None and not math.isfinite(norm))


def _mean(values: Values) -> float | None:
    return float(values.mean()) if values.size else None


def _tidied(value: Any) -> Any:
    if isinstance(value, float):
        return tidy(value)
    if isinstance(value, list):
        return [_tidied(v) for v in value]
    if isinstance(value, dict):
        return {k: _tidied(v) for k, v in value.items()}
    return value
