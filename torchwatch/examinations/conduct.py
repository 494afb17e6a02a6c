"""Conducts an autopsy: one examination after another, each on its own, the patient put back after each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchwatch.errors import TorchwatchError, UsageError
from torchwatch.examinations._admission import check_model
from torchwatch.examinations._placing import unwrapped
from torchwatch.examinations.case import (
    Case,
    Options,
    OutOfTime,
    shape_remarks,
    silent,
)
from torchwatch.examinations.examination import Examination, NotApplicable, chosen
from torchwatch.examinations.untouched import untouched
from torchwatch.results import About, Autopsy, AutopsyInputs, Outcome

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis

INTERRUPTED = "interrupted by Ctrl-C"

_SCRIPTED = "a scripted or traced model cannot be looked into: pass the model as it was before torch.jit"

Listen = Callable[[str, int, int], None]
"""Called with an examination's title, how much of it is done, and of how much."""


def conduct(
    inputs: AutopsyInputs,
    *,
    examine: Iterable[str] | None = None,
    options: Options | None = None,
    device: str | torch.device | None = None,
    diagnosis: Diagnosis | None = None,
    listen: Listen = silent,
    until_interrupted: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Autopsy:
    """Examine a model on data.

    Args:
        inputs: model, data and what is known of them.
        examine: names of examinations (default: all).
        options: samples, seed, time limit and the examinations' settings.
        device: where to run (default: where the model is); another one gets a copy of the model.
        diagnosis: what the run's checks found, for the verdict.
        listen: told how far it is.
        until_interrupted: at Ctrl-C give what was done so far instead of passing it on.
        clock: seconds, for the time limit.

    Raises:
        UsageError: there is nothing to examine: no model, no samples, a model that raises on its first
            samples, an output that no task fits; an unknown examination or device.
    """
    started_s = clock()
    wanted = chosen(examine)
    patient = inputs.model
    check_model(patient)
    with untouched(unwrapped(patient)):  # and again for each examination, so that one copy is held at a time
        listen("reading samples", 0, 1)
        case = _case(inputs, options, device, diagnosis, clock)
    outcomes = _outcomes(wanted, case, listen, clock, until_interrupted=until_interrupted)
    return Autopsy(_about(case, clock() - started_s), outcomes)


def _case(
    inputs: AutopsyInputs,
    options: Options | None,
    device: str | torch.device | None,
    diagnosis: Diagnosis | None,
    clock: Callable[[], float],
) -> Case:
    try:
        return Case(inputs, options, device=device, diagnosis=diagnosis, clock=clock)
    except TorchwatchError:
        raise
    except Exception as error:
        raise UsageError(f"the model or its data raised on the first samples: {_why(error)}") from error


def _outcomes(
    wanted: tuple[Examination, ...],
    case: Case,
    listen: Listen,
    clock: Callable[[], float],
    *,
    until_interrupted: bool,
) -> tuple[Outcome, ...]:
    outcomes: list[Outcome] = []
    try:
        for examination in wanted:
            outcomes.append(_examined(examination, case, listen, clock))  # noqa: PERF401 - kept at Ctrl-C
    except KeyboardInterrupt:
        if not until_interrupted:
            raise
    left = wanted[len(outcomes) :]
    return (*outcomes, *(Outcome(e.name, e.title, "skipped", reason=INTERRUPTED) for e in left))


def _examined(examination: Examination, case: Case, listen: Listen, clock: Callable[[], float]) -> Outcome:
    name, title = examination.name, examination.title
    started_s = clock()
    if examination.needs_targets and case.targets is None:
        return Outcome(name, title, "skipped", reason=case.without_targets)
    case.progress = lambda done, total: listen(title, done, total)
    case.progress(0, 1)
    try:
        case.check_time()
        # what overflows or is no number is told in the result, not in numpy's warnings on the terminal
        with untouched(case.model), warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
            warnings.filterwarnings("ignore", module="captum")  # what matters of them is said in our words
            result = examination.examine(case)
    except (NotApplicable, OutOfTime) as reason:
        return Outcome(name, title, "skipped", reason=str(reason), duration_s=clock() - started_s)
    except Exception as error:  # noqa: BLE001 - one examination never stops the others; its section says why
        if isinstance(case.model, torch.jit.ScriptModule):
            return Outcome(name, title, "skipped", reason=_SCRIPTED, duration_s=clock() - started_s)
        return Outcome(name, title, "failed", reason=_why(error), duration_s=clock() - started_s)
    case.results[name] = result
    return Outcome(name, title, "done", result, duration_s=clock() - started_s)


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _about(case: Case, duration_s: float) -> About:
    samples = case.samples
    return About(
        model=type(case.model).__name__,
        parameters=sum(p.numel() for p in case.model.parameters()),
        task=case.task.name,
        task_source=case.task.source,
        samples=len(samples),
        available=samples.available,
        inputs={k: tuple(v.shape[1:]) for k, v in samples.inputs.items()},
        main=case.main,
        axes=case.axes,
        targets=None if samples.targets is None else tuple(samples.targets.shape[1:]),
        device=str(case.device),
        seed=case.options.seed,
        duration_s=duration_s,
        remarks=shape_remarks(case),
    )
