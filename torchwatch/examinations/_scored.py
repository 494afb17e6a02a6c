"""Predictions beside targets as numpy arrays, computed once a case: what all metrics start from.

What cannot be scored (NaN on either side, an ignored target) is marked or left out here and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from torchwatch.errors import UsageError
from torchwatch.examinations import tasks
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

LEAST_LOG = float(np.log(np.finfo(np.float32).tiny))
"""Log-likelihoods end here (nats): one decision of probability 0 does not make every mean infinite."""

_LARGEST_OUTPUT = 2**26
"""Numbers that one chunk's output may hold: a language model's vocabulary fills memory soon."""

_LEAST_UNITS = 10


@dataclass(frozen=True)
class Numbers:
    """A regression.

    Attributes:
        predictions: (N, K).
        targets: (N, K).
        finite: both are finite (N, K).
        error: mean squared error of each sample over its finite outputs (N,); NaN where there are none.
        nan_predictions: predicted values that are NaN or infinite.
        nan_targets: target values that are.
        bad: places in the data of the samples with such predictions.
    """

    predictions: Floats
    targets: Floats
    finite: Booleans
    error: Floats
    nan_predictions: int
    nan_targets: int
    bad: Integers


@dataclass(frozen=True)
class Decisions:
    """A classification as single decisions: one a sample, a label or a token; those that can be scored.

    Attributes:
        sample: number of the sample of each decision (M,).
        label: its label, for multilabel; else 0 (M,).
        true: class (M,).
        predicted: class (M,).
        confidence: probability of the predicted class (M,).
        log_likelihood: of the true class (nats) (M,).
        error: mean negative log-likelihood of each sample (nats) (N,); NaN where nothing counts.
        classes: how many classes the model knows.
        labels: how many labels; 1 except for multilabel.
        nan_predictions: decisions without a finite prediction.
        nan_targets: decisions whose target is NaN.
        ignored: decisions that the target −100 takes out.
        bad: places in the data of the samples with decisions without a finite prediction.
    """

    sample: Integers
    label: Integers
    true: Integers
    predicted: Integers
    confidence: Floats
    log_likelihood: Floats
    error: Floats
    classes: int
    labels: int
    nan_predictions: int
    nan_targets: int
    ignored: int
    bad: Integers

    @property
    def right(self) -> Booleans:
        """Whether each decision is right (M,)."""
        same: Booleans = self.true == self.predicted
        return same


_KNOWN: WeakKeyDictionary[Case, Numbers | Decisions] = WeakKeyDictionary()


def scored(case: Case) -> Numbers | Decisions:
    """Predictions beside targets.

    Raises:
        UsageError: there are no targets, or they do not fit the outputs.
    """
    if case not in _KNOWN:
        _KNOWN[case] = _decisions(case) if case.task.classifies else _numbers(case)
    return _KNOWN[case]


def units(case: Case) -> tuple[Integers, str]:
    """What is drawn again for an interval, a number for each sample (N,), and its name.

    Groups where there are at least 10, because samples of one group are no independent evidence; else each
    sample on its own.
    """
    if case.groups is not None:
        codes = codes_of(case.groups)
        if codes.max() + 1 >= _LEAST_UNITS:
            return codes, "group"
    return np.arange(len(case.samples)), "sample"


def codes_of(values: list[Any]) -> Integers:
    """A number from 0 for each distinct value, in order of appearance (N,)."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(str(v), len(known)) for v in values], np.int64)


def output_names(case: Case, count: int) -> tuple[str, ...]:
    """Names of a regression's outputs: by their place in the targets' shape."""
    shape = () if case.samples.targets is None else tuple(case.samples.targets.shape[1:])
    if count == 1:
        return ("output",)
    if len(shape) < 2 or int(np.prod(shape)) != count:
        return tuple(f"output {i}" for i in range(count))
    return tuple(f"output [{', '.join(map(str, np.unravel_index(i, shape)))}]" for i in range(count))


def _numbers(case: Case) -> Numbers:
    outputs, targets = case.outputs, case.wanted_targets
    if outputs.shape != targets.shape:
        raise UsageError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} differ in shape: give them "
            "the same size"
        )
    p, y = outputs.double().numpy(), targets.double().numpy()
    fine_p, fine_y = np.isfinite(p), np.isfinite(y)
    finite = fine_p & fine_y
    squared = np.where(finite, np.where(finite, p, 0) - np.where(finite, y, 0), 0) ** 2
    count = finite.sum(1)
    error = np.full(len(p), np.nan)
    np.divide(squared.sum(1), count, out=error, where=count > 0)
    bad = case.samples.index[~fine_p.all(1)]
    return Numbers(p, y, finite, error, int((~fine_p).sum()), int((~fine_y).sum()), bad)


# ---------------------------------------------------------------------- classes


def _decisions(case: Case) -> Decisions:
    targets = case.wanted_targets
    _check_classes(case, targets)
    parts = [_decided(out, targets[a:b], case.task) for a, b, out in _outputs(case)]
    true, predicted, confidence, likelihood = (
        torch.cat([p[i] for p in parts]).double().numpy() for i in range(4)
    )
    places = true.shape[1]
    many = case.task.name == "multilabel"
    no_target, no_prediction = np.isnan(true), np.isnan(confidence) | np.isnan(likelihood)
    ignored = true == tasks.IGNORED
    kept = ~(no_target | no_prediction | ignored)
    sample, place = np.nonzero(kept)
    clipped = np.maximum(likelihood[kept], LEAST_LOG)
    count = kept.sum(1)
    error = np.full(len(true), np.nan)
    np.divide(-np.bincount(sample, clipped, minlength=len(true)), count, out=error, where=count > 0)
    return Decisions(
        sample=sample,
        label=place if many else np.zeros_like(place),
        true=true[kept].astype(np.int64),
        predicted=predicted[kept].astype(np.int64),
        confidence=np.minimum(confidence[kept], 1.0),
        log_likelihood=clipped,
        error=error,
        classes=2 if many else len(case.class_names),
        labels=places if many else 1,
        nan_predictions=int((no_prediction & ~ignored).sum()),
        nan_targets=int(no_target.sum()),
        ignored=int(ignored.sum()),
        bad=case.samples.index[(no_prediction & ~ignored).any(1)],
    )


def _outputs(case: Case) -> Iterator[tuple[int, int, Tensor]]:
    """Canonical outputs on the CPU in chunks that fit memory; of tokens they are never all held at once."""
    if case.task.name != "token":
        yield 0, len(case.samples), case.outputs
        return
    inputs, count = case.samples.inputs, len(case.samples)

    def work(start: int, end: int) -> Tensor:
        with torch.no_grad():
            return case.forward({k: v[start:end] for k, v in inputs.items()}).cpu()

    size = chunk_of(case, work(0, 1).numel())
    for start, end, out in in_chunks(work, count, size):
        yield start, end, out
        case.tick(end, count)


def chunk_of(case: Case, numel: int) -> int:
    """Samples a chunk, where a sample's output holds ``numel`` numbers."""
    return max(1, min(case.options.chunk, _LARGEST_OUTPUT // max(1, numel)))


def _decided(out: Tensor, targets: Tensor, task: tasks.Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True class, predicted class, its probability and the true one's log-likelihood, each (n, places)."""
    if task.name in ("binary", "multilabel"):
        return _decided_labels(out, targets, task)
    logs = tasks.log_probabilities(out, task)
    true = targets.unsqueeze(1) if task.name == "multiclass" else targets
    logs = logs.unsqueeze(1) if task.name == "multiclass" else logs
    if logs.shape[:-1] != true.shape:
        raise UsageError(
            f"outputs at {tuple(logs.shape[:-1])} places do not fit targets of shape {tuple(true.shape)}: "
            "the loader must give one target per output token"
        )
    best, predicted = logs.max(-1)
    wanted = logs.gather(-1, true.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return true.double(), predicted.double(), best.double().exp(), wanted.double()


def _decided_labels(out: Tensor, targets: Tensor, task: tasks.Task) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if out.shape != targets.shape:
        raise UsageError(f"outputs {tuple(out.shape)} and targets {tuple(targets.shape)} differ in shape")
    wide, wanted = out.double(), targets.double()
    p = tasks.probabilities(wide, task)
    if task.probabilities:
        log_one, log_zero = p.clamp(min=1e-300).log(), (1 - p).clamp(min=1e-300).log()
    else:
        log_one, log_zero = functional.logsigmoid(wide), functional.logsigmoid(-wide)
    # a soft target splits its likelihood; a log of −∞ times 0 is 0
    likelihood = torch.where(wanted > 0, wanted * log_one, 0.0) + torch.where(
        wanted < 1, (1 - wanted) * log_zero, 0.0
    )
    true = torch.where(wanted.isnan() | (wanted == tasks.IGNORED), wanted, (wanted > 0.5).double())
    return true, (p > 0.5).double(), torch.maximum(p, 1 - p), torch.where(p.isnan(), p, likelihood)


def _check_classes(case: Case, targets: Tensor) -> None:
    """Targets must be classes that the model has."""
    if case.task.name not in ("multiclass", "token"):
        return
    count = len(case.class_names)
    counted = targets[targets != tasks.IGNORED]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= count):
        worst = int(counted.max()) if int(counted.max()) >= count else int(counted.min())
        raise UsageError(
            f"the targets hold class {worst}, but the model has outputs for the classes 0 … {count - 1}: "
            "number the classes from 0, or give the model more outputs"
        )
