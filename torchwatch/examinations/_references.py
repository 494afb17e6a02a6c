"""What "nothing" is for an attribution: zeros, the mean sample, other samples, or a blurred copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from torchwatch.errors import ConfigError
from torchwatch.examinations.examination import NotApplicable
from torchwatch.examinations.samples import take

if TYPE_CHECKING:
    from torchwatch.examinations._explained import Subject
    from torchwatch.examinations.case import Case

KINDS = ("zero", "mean", "random", "blur")
_POOL = 100
"""Samples that mean and random baselines are taken from."""
_BLUR, _WIDEST = 0.1, 50.0
"""Standard deviation of the blur, as a share of an axis, and its largest value in elements."""


@dataclass(frozen=True)
class Reference:
    """A baseline for each explained sample.

    Attributes:
        words: what it is, for people.
        values: (n, …), the shape of what is attributed, on the CPU.
        pool: other samples in the same form (p, …), for methods that draw from several baselines.
    """

    words: str
    values: Tensor
    pool: Tensor


def reference(subject: Subject, kind: str) -> Reference:
    """The baseline of a kind.

    Args:
        subject: samples to explain.
        kind: one of :data:`KINDS`.

    Raises:
        ConfigError: an unknown kind.
        NotApplicable: a blur of an input without an axis to blur along.
    """
    if kind not in KINDS:
        raise ConfigError(f"ig_baseline must be one of {', '.join(KINDS)}, not {kind!r}")
    case = subject.case
    others, source = pool_of(case)
    pool = subject.embedded(others)
    main = subject.main
    if kind == "zero":
        where = "embedding vectors of zeros" if subject.embedding else "an input of zeros"
        return Reference(where, torch.zeros_like(main), pool)
    if kind == "mean":
        return Reference(
            f"the mean of {len(pool)} {source}", pool.mean(0, keepdim=True).expand_as(main), pool
        )
    if kind == "random":
        drawn = torch.from_numpy(case.rng("reference").integers(len(pool), size=len(main)))
        return Reference(f"for each sample one of {len(pool)} {source}", pool[drawn], pool)
    return Reference("the sample blurred", _blurred(subject), pool)


def pool_of(case: Case) -> tuple[Tensor, str]:
    """Finite samples of the main input, of the training data where it has its shape; and what they are."""
    own = case.samples.inputs[case.main]
    found, words = own, "of the examined samples"
    if case.inputs.train_data is not None:
        trained = take(case.inputs.train_data, _POOL, case.options.seed).inputs.get(case.main)
        if trained is not None and trained.shape[1:] == own.shape[1:]:
            found, words = trained.to(own.dtype), "training samples"
    found = found[torch.isfinite(found.reshape(len(found), -1)).all(1)]
    chosen = torch.from_numpy(case.rng("pool").permutation(len(found))[:_POOL].copy())
    return found[chosen], words


def _blurred(subject: Subject) -> Tensor:
    if subject.embedding is not None:
        raise NotApplicable("tokens cannot be blurred: use ig_baseline='zero', 'mean' or 'random'")
    axes = [i for i, name in enumerate(subject.case.axes, 1) if name not in ("channel", "feature")]
    if not axes:
        raise NotApplicable("the input has no axis to blur along: use ig_baseline='zero', 'mean' or 'random'")
    blurred = subject.main
    for axis in axes:
        blurred = _blurred_along(blurred, axis)
    return blurred


def _blurred_along(values: Tensor, axis: int) -> Tensor:
    """Gaussian blur along one axis, the ends held."""
    length = values.shape[axis]
    width = min(max(1.0, _BLUR * length), _WIDEST)
    reach = int(3 * width)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2).to(values.dtype)
    moved = values.movedim(axis, -1)
    padded = functional.pad(moved.reshape(-1, 1, length), (reach, reach), mode="replicate")
    smooth = functional.conv1d(padded, (kernel / kernel.sum()).reshape(1, 1, -1))
    return smooth.reshape(moved.shape).movedim(-1, axis)
