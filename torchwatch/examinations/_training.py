"""Training copies of the patient for a short while."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.examinations import tasks
from torchwatch.examinations._placing import copied
from torchwatch.examinations.case import Case

_BATCH = 64
_MOST_STEPS = 600
_LEAST_STEPS = 40
_SECONDS = 15.0
"""Longest one attempt trains; with fewer than the least steps in it nothing can be said."""
_PATIENCE = 5
_PATIENCE_STEPS = 150
"""An attempt ends after this many epochs and steps without an improvement."""
_LEARNING_RATES = (1e-3, 1e-4)
MEMORISED = 32
"""Samples that a fresh copy has to learn by heart."""


@dataclass
class Data:
    """Training samples split into those that are fitted and those that say when to stop, and the test.

    Attributes:
        case: the case.
        inputs: named inputs of the training samples, in the order of the data.
        targets: their targets as given.
        fit: rows that are fitted.
        stop: rows that say when to stop.
        test_inputs: named inputs of the held-out samples.
        test_targets: their targets as given.
        own_split: both are parts of the samples that were given.
    """

    case: Case
    inputs: dict[str, Tensor]
    targets: Tensor
    fit: Tensor
    stop: Tensor
    test_inputs: dict[str, Tensor]
    test_targets: Tensor
    own_split: bool

    def of(self, rows: Tensor) -> dict[str, Tensor]:
        """Inputs of some rows."""
        return {k: v[rows] for k, v in self.inputs.items()}

    def canonical(self, rows: Tensor) -> Tensor:
        """Canonical targets of some rows."""
        return tasks.canonical_targets(self.targets[rows], self.case.task)


def mistakes(outputs: Tensor, targets: Tensor, case: Case) -> Tensor:
    """Error of each sample: mean squared error, or share of wrong answers (N,)."""
    task = case.task
    if task.name == "regression":
        return tasks.errors(outputs, targets.to(outputs.dtype), task)
    if task.name in ("binary", "multilabel"):
        chosen = outputs > (0.5 if task.probabilities else 0.0)
        return (chosen != (targets > 0.5)).double().mean(1)
    wrong = (outputs.argmax(-1) != targets).double()
    counted = (targets != tasks.IGNORED).double()
    wrong = wrong * counted
    if wrong.ndim == 1:
        return wrong
    return wrong.sum(1) / counted.sum(1).clamp(min=1)


@dataclass
class Learned:
    """A trained copy, its optimizer steps and how long they took (s)."""

    model: nn.Module
    steps: int
    seconds: float


def learn(case: Case, data: Data, *, restart: bool) -> Learned | None:
    """A trained copy: the best by the samples that say when to stop; None where a step takes too long."""
    torch.manual_seed(case.options.seed)
    for rate in _LEARNING_RATES:
        model = case.copy_of_model()
        if restart:
            start_anew(model)
        learned = _train(case, data, model, rate)
        if learned is not None and _finite(learned.model):
            return learned
    return None


def _train(case: Case, data: Data, model: nn.Module, rate: float) -> Learned | None:
    optimizer = _optimizer(model, rate)
    if optimizer is None:
        return None
    draw, started_s = case.generator("relearning batches"), time.monotonic()
    best, kept = _stop_error(case, data, model), copied(model)
    steps = stale = stale_steps = 0
    while steps < _MOST_STEPS and (stale < _PATIENCE or stale_steps < _PATIENCE_STEPS):
        done = _epoch(case, data, model, optimizer, draw, started_s)
        steps, stale, stale_steps = steps + done, stale + 1, stale_steps + done
        error = _stop_error(case, data, model)
        if error < best:
            best, kept, stale, stale_steps = error, copied(model), 0, 0
        if time.monotonic() - started_s >= _SECONDS:
            break
    seconds = time.monotonic() - started_s
    return Learned(kept, steps, seconds) if steps >= _LEAST_STEPS else None


def _epoch(
    case: Case,
    data: Data,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    draw: torch.Generator,
    started_s: float,
) -> int:
    """Steps over all fitted rows, or until time is over; how many were made."""
    model.train()
    steps = 0
    for rows in data.fit[torch.randperm(len(data.fit), generator=draw)].split(_BATCH):
        if len(rows) < 2 <= len(data.fit):
            continue  # BatchNorm has no statistics of one sample
        case.check_time()
        _step(case, data, model, optimizer, rows)
        steps += 1
        if time.monotonic() - started_s >= _SECONDS:
            break
    model.eval()
    return steps


def _optimizer(model: nn.Module, rate: float) -> torch.optim.Optimizer | None:
    parameters = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01) if parameters else None


def _step(case: Case, data: Data, model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor) -> None:
    with torch.enable_grad():
        raw = case.raw(data.of(rows), model)
        outputs = tasks.canonical(raw, None, case.task)
        wanted = data.canonical(rows).to(outputs.device)
        loss = tasks.errors(outputs, wanted, case.task).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()


def _stop_error(case: Case, data: Data, model: nn.Module) -> float:
    outputs = case.predict(data.of(data.stop), model)
    error = float(tasks.errors(outputs, data.canonical(data.stop), case.task).mean())
    return error if np.isfinite(error) else float("inf")


def _finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.is_floating_point())


@torch.no_grad()
def start_anew(model: nn.Module) -> int:
    """Fresh weights for every module that knows how to draw them; how many parameters it did not."""
    known: set[int] = set()
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
            known |= {id(p) for p in module.parameters(recurse=isinstance(module, nn.MultiheadAttention))}
    left = [p for p in model.parameters() if id(p) not in known]
    for parameter in left:
        if parameter.ndim > 1 and parameter.is_floating_point():
            parameter.normal_(0.0, 0.02)
    return len(left)


def memorised(case: Case, data: Data) -> float:
    """How much of a few samples' error a restarted copy can get rid of; NaN where time ended it."""
    torch.manual_seed(case.options.seed)
    model = case.copy_of_model()
    start_anew(model)
    rows = data.fit[:MEMORISED]
    optimizer = _optimizer(model, _LEARNING_RATES[0])
    if optimizer is None or len(rows) < 2:
        return float("nan")
    inputs, wanted = data.of(rows), data.canonical(rows)
    naive = _mistakes_of_constant(wanted, case)
    if not naive > 0:
        return float("nan")  # one answer for all of them: nothing to learn by heart
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()  # noise would stand against learning by heart
    started_s, least = time.monotonic(), 1.0
    for step in range(_MOST_STEPS // 2):
        if time.monotonic() - started_s >= _SECONDS:
            return 1 - least if least < 0.1 else float("nan")  # cut short, only success tells anything
        _step(case, data, model, optimizer, rows)
        if step % 20 == 19:
            with torch.no_grad():
                outputs = case.forward(inputs, model).detach().cpu()
            least = min(least, float(mistakes(outputs, wanted, case).mean()) / max(naive, 1e-12))
            if least < 0.02:
                break
    return 1 - least


def _mistakes_of_constant(wanted: Tensor, case: Case) -> float:
    if case.task.name == "regression":
        return float(wanted.var(0, correction=0).mean())
    if case.task.name in ("binary", "multilabel"):
        share = (wanted > 0.5).double().mean(0)
        return float(torch.minimum(share, 1 - share).mean())
    counted = wanted[wanted != tasks.IGNORED]
    return 1 - float(torch.bincount(counted).max()) / max(1, counted.numel())
