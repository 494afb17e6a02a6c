"""Many forward passes with dropout, summed up on the way: no pass is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchwatch.examinations import tasks
from torchwatch.examinations._scored import chunk_of
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_HELD = 6
"""Arrays as large as the output that are held at once."""

_FEW_CLASSES = 1000

_MOST_NUMBERS = 2**31
"""Output numbers of all passes together: of a large vocabulary fewer samples are looked at, for time."""

_LEAST_SAMPLES = 20


@dataclass(frozen=True)
class PassesOfNumbers:
    """A regression's passes.

    Attributes:
        rows: numbers of the samples that were looked at (N,).
        mean: over the passes (N, K).
        std: over the passes, unbiased (N, K).
    """

    rows: Integers
    mean: Floats
    std: Floats


@dataclass(frozen=True)
class PassesOfClasses:
    """A classification's passes, of the decisions that can be scored (M,); of all without targets.

    Attributes:
        rows: numbers of the samples that were looked at (N,).
        predicted: class with the largest mean probability.
        true: class; None without targets.
        confidence: mean probability of the predicted class.
        std: of that probability over the passes, unbiased.
        entropy: of the mean probabilities (nats).
        mutual_information: entropy of the mean less mean entropy (nats), at least 0.
    """

    rows: Integers
    predicted: Integers
    true: Integers | None
    confidence: Floats
    std: Floats
    entropy: Floats
    mutual_information: Floats

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each is right (M,); empty without targets."""
        if self.true is None:
            return np.empty(0, bool)
        same: npt.NDArray[np.bool_] = self.predicted == self.true
        return same


def of_numbers(case: Case, passes: int) -> PassesOfNumbers:
    """Mean and standard deviation of every output."""
    rows, parts = _all(case, passes, lambda out: out.double(), _moments)
    return PassesOfNumbers(rows, *(torch.cat(p).numpy() for p in zip(*parts, strict=True)))


def of_classes(case: Case, passes: int) -> PassesOfClasses:
    """Mean probabilities, what they say, and how much the passes disagree."""
    rows, parts = _all(case, passes, lambda out: _probabilities(out, case.task), _decided)
    values = [torch.cat(p) for p in zip(*parts, strict=True)]
    predicted, confidence, std, entropy, information = (v.numpy() for v in values)
    kept, true = np.isfinite(confidence) & np.isfinite(entropy), None
    if case.targets is not None:
        wanted = case.targets[rows].reshape(len(rows), -1).double().numpy()
        kept &= np.isfinite(wanted) & (wanted != tasks.IGNORED)
        yes_or_no = case.task.name in ("binary", "multilabel")
        true = (wanted[kept] > 0.5 if yes_or_no else wanted[kept]).astype(np.int64)
    return PassesOfClasses(
        rows=rows,
        predicted=predicted[kept].astype(np.int64),
        true=true,
        confidence=np.clip(confidence[kept], 0, 1),
        std=std[kept],
        entropy=entropy[kept],
        mutual_information=np.maximum(information[kept], 0),
    )


class _Sums:
    """Sums over passes: of values, of squares (both less the first pass, for precision), of entropies."""

    def __init__(self, first: Tensor) -> None:
        self.first, self.count = first, 0
        self.sum, self.squares = torch.zeros_like(first), torch.zeros_like(first)
        self.entropy: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        apart = values - self.first
        self.count += 1
        self.sum += apart
        self.squares += apart * apart
        self.entropy = self.entropy + _entropy(values)

    @property
    def mean(self) -> Tensor:
        return self.first + self.sum / self.count

    @property
    def std(self) -> Tensor:
        variance = (self.squares - self.sum**2 / self.count) / max(self.count - 1, 1)
        return variance.clamp(min=0).sqrt()


def _all(case: Case, passes: int, read: Any, finish: Any) -> tuple[Integers, list[tuple[Tensor, ...]]]:
    """Chunks outside, passes inside; the random numbers depend on the seed and the chunk's first sample."""
    with torch.no_grad():
        numel = case.forward({k: v[:1] for k, v in case.samples.inputs.items()}).numel()
    rows = _rows(case, passes * numel)
    inputs, count = {k: v[rows] for k, v in case.samples.inputs.items()}, len(rows)
    seed = int(case.rng("uncertainty").integers(2**31))

    def work(start: int, end: int) -> tuple[Tensor, ...]:
        chunk = {k: v[start:end] for k, v in inputs.items()}
        torch.manual_seed(seed + start)
        sums: _Sums | None = None
        with torch.no_grad():
            for _ in range(passes):
                case.check_time()
                values = read(case.forward(chunk))
                sums = sums or _Sums(values)
                sums.add(values)
        assert sums is not None
        return tuple(v.cpu() for v in finish(sums))

    parts = []
    for _, end, part in in_chunks(work, count, chunk_of(case, _HELD * numel)):
        parts.append(part)
        case.tick(end, count)
    return rows, parts


def _rows(case: Case, numbers: int) -> Integers:
    """The samples that are looked at: all, or a seeded choice where each costs many numbers."""
    count = len(case.samples)
    most = max(_LEAST_SAMPLES, _MOST_NUMBERS // max(1, numbers))
    if count <= most:
        return np.arange(count)
    return np.sort(case.rng("samples with dropout").permutation(count)[:most])


def _moments(sums: _Sums) -> tuple[Tensor, ...]:
    return sums.mean, sums.std


def _decided(sums: _Sums) -> tuple[Tensor, ...]:
    """Of mean probabilities (n, places, classes): predicted class, its mean and std, entropy, information."""
    confidence, predicted = sums.mean.max(-1)
    std = sums.std.gather(-1, predicted.unsqueeze(-1)).squeeze(-1)
    entropy = _entropy(sums.mean)
    information = entropy - sums.entropy / sums.count
    return tuple(v.double() for v in (predicted, confidence, std, entropy, information))


def _probabilities(out: Tensor, task: tasks.Task) -> Tensor:
    """(n, places, classes); yes-or-no labels as two classes. A vocabulary stays in single precision."""
    p = tasks.probabilities(out, task)
    p = p.double() if p.shape[-1] <= _FEW_CLASSES else p
    if task.name in ("binary", "multilabel"):
        return torch.stack([1 - p, p], -1)
    return p.unsqueeze(1) if task.name == "multiclass" else p


def _entropy(p: Tensor) -> Tensor:
    each: Tensor = torch.special.entr(p.clamp(min=0))
    return each.sum(-1)
