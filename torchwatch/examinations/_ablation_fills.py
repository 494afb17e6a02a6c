"""What is put in the place of an element: other samples' values, the mean, noise or zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchwatch.errors import UsageError
from torchwatch.examinations._ablation_elements import Element, Piece

FILLS = ("permutation", "mean", "noise", "zero")
DRAWN = ("permutation", "noise")
"""Fills that differ from draw to draw."""

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Job:
    """An element and one draw of what fills it.

    Attributes:
        element: what is filled.
        donors: which sample each sample gets its values from (N,); None unless they are permuted.
        seed: of the noise.
    """

    element: Element
    donors: Tensor | None
    seed: int


class Fills:
    """Values that fill an element of an input.

    Args:
        home: the main input (N, …), where the values are wanted.
        fill: one of :data:`FILLS`. Mean and noise have the mean and the standard deviation over samples of
            each single place, so that an evoked waveform or a mean image is kept.

    Raises:
        UsageError: an unknown fill, or one that the input's type has no meaning for.
    """

    def __init__(self, home: Tensor, fill: str) -> None:
        if fill not in FILLS:
            raise UsageError(f"fill must be one of {', '.join(FILLS)}, not {fill!r}")
        if fill in ("mean", "noise") and not home.is_floating_point():
            raise UsageError(f"inputs of {home.dtype} have no {fill}: ablate them with fill='permutation'")
        self.home, self.fill = home, fill
        reference = torch.zeros_like(home[:1]) if fill == "zero" else home[:1]
        self._varies = (home != reference).any(0)
        wide = home.float() if fill in ("mean", "noise") and home.dtype != torch.float64 else home
        self._mean = wide.mean(0) if fill in ("mean", "noise") else None
        self._deviation = wide.std(0) if fill == "noise" else None

    def leaves_alone(self, element: Element) -> bool:
        """Whether the fill puts what is there already: an element that is the same in all samples, or 0."""
        return not any(bool(self._varies[piece].any()) for piece in element.pieces)

    def job(self, element: Element, orders: Orders, draw: int) -> Job:
        """The element with a draw of its fill."""
        donors = None
        if self.fill == "permutation":
            donors = torch.from_numpy(orders.donors(draw)).to(self.home.device)
        return Job(element, donors, orders.seed + draw)

    def values(self, piece: Piece, job: Job) -> Tensor:
        """What fills a piece in all samples (N, …)."""
        own = self.home[(slice(None), *piece)]
        if job.donors is not None:
            return own.index_select(0, job.donors)
        if self._mean is None:
            return torch.zeros_like(own)
        mean = self._mean[piece].expand(own.shape)
        if self._deviation is not None:
            generator = torch.Generator(self.home.device).manual_seed(job.seed)
            noise = torch.randn(own.shape, generator=generator, device=own.device, dtype=mean.dtype)
            mean = mean + self._deviation[piece] * noise
        return mean.to(own.dtype)


class Orders:
    """The draws of one element: which sample takes from which.

    The samples stand in a circle of random order, and each takes from the one that is so many places ahead,
    another number in each draw: nobody takes from itself or from the same one twice.
    """

    def __init__(self, count: int, draws: int, rng: np.random.Generator) -> None:
        self._circle = rng.permutation(count)
        self._ahead = rng.permutation(count - 1)[:draws] + 1
        self.seed = int(rng.integers(2**31))

    def donors(self, draw: int) -> Integers:
        """Which sample each takes from (N,), a permutation without fixed points."""
        donors = np.empty_like(self._circle)
        donors[self._circle] = np.roll(self._circle, -int(self._ahead[draw]))
        return donors
