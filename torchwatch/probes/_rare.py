"""How a layer spreads its samples: cosine, effective rank, similarity to the next layer.

All three follow from the Gram matrix of a layer's outputs, so the training thread makes one small matrix
product per layer, in double precision, and the recorder does the rest; no features are kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

SAMPLES = 64
"""Samples that are looked at, at most: evenly spaced in the batch."""

FEATURES = 2048
"""Features that are looked at, at most: evenly spaced in the order of memory."""

_ALIKE = 1e-10
"""Below this share of its size, what distinguishes samples is rounding."""

Matrix = npt.NDArray[np.float64]


class Geometry(NamedTuple):
    """What :func:`described` finds for one layer; None where it is not defined."""

    cosine: float | None
    effective_rank: float | None
    cka: float | None


def gram(tensor: torch.Tensor) -> torch.Tensor | None:
    """Inner products of the samples of a layer's output X and of a constant, of shape (n + 1, n + 1).

    X is (n, F): up to 64 samples, up to 2,048 features. The last row holds the sums of the features of each
    sample and F. float64 (float32 on devices without it). None for less than two samples.
    """
    if tensor.dim() == 0 or tensor.shape[0] < 2:
        return None
    rows = tensor[:: math.ceil(tensor.shape[0] / SAMPLES)]
    axes = sorted(range(1, rows.dim()), key=rows.stride, reverse=True)
    matrix = rows.permute(0, *axes).reshape(rows.shape[0], -1)
    step = math.ceil(matrix.shape[1] / FEATURES)
    # An odd step, so that it is no multiple of the row length of an image.
    matrix = matrix[:, :: step | 1 if step > 1 else 1]
    wide = torch.float32 if tensor.device.type == "mps" else torch.float64
    with_ones = torch.ones(matrix.shape[0] + 1, matrix.shape[1], dtype=wide, device=tensor.device)
    with_ones[:-1] = matrix
    return with_ones @ with_ones.t()


def described(grams: list[tuple[int, Matrix]]) -> list[Geometry]:
    """The geometry of layers in the order of their calls: (samples in the batch, Gram matrix) of each.

    ``cosine``: mean over pairs of samples of the cosine of their outputs, each centred over its features
    (Pearson's correlation): 1 where all samples get the same, about 0 where they have nothing in common.
    Samples whose features are all equal have no direction and are left out.

    ``effective_rank``: exp(−Σ p ln p) with p the singular values of X divided by their sum (Roy & Vetterli
    2007), from 1 to min(n, F).

    ``cka``: linear centred kernel alignment with the next layer in the list that has as many samples
    (Kornblith et al. 2019), with the unbiased estimator of HSIC (Song et al. 2012; Nguyen et al. 2021),
    needs four samples; below 0 by chance where there is nothing in common. A layer that puts out the same
    for every sample is similar to nothing: None.

    A value that is not finite (there was one in X) is NaN.
    """
    centred = [_u_centred(matrix) for _, matrix in grams]
    found = []
    for place, (samples, matrix) in enumerate(grams):
        following = next((j for j in range(place + 1, len(grams)) if grams[j][0] == samples), None)
        cka = None if following is None else _aligned(centred[place], centred[following])
        found.append(Geometry(_cosine(matrix), _effective_rank(matrix), cka))
    return found


def _cosine(matrix: Matrix) -> float | None:
    sums, features = matrix[-1, :-1], matrix[-1, -1]
    products = matrix[:-1, :-1] - np.outer(sums, sums) / features
    squares = np.diag(products)
    has_direction = ~(squares <= _ALIKE * np.diag(matrix)[:-1])
    count = int(has_direction.sum())
    if count < 2:
        return None
    scale = 1 / np.sqrt(squares[has_direction])
    cosines = products[np.ix_(has_direction, has_direction)] * np.outer(scale, scale)
    return float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def _effective_rank(matrix: Matrix) -> float | None:
    samples = matrix[:-1, :-1]
    if not np.isfinite(samples).all():
        return math.nan
    values = np.sqrt(np.linalg.eigvalsh(samples).clip(min=0))
    total = values.sum()
    if total == 0:
        return None
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _u_centred(matrix: Matrix) -> Matrix | None:
    """The Gram matrix U-centred, of unit length: products of two are debiased CKA. None: not defined."""
    samples = matrix[:-1, :-1].copy()
    count = len(samples)
    if count < 4:
        return None
    np.fill_diagonal(samples, 0.0)
    rows = samples.sum(0)
    centred = samples - (rows[:, None] + rows) / (count - 2) + rows.sum() / ((count - 1) * (count - 2))
    np.fill_diagonal(centred, 0.0)
    length = np.linalg.norm(centred)
    if length <= _ALIKE * np.linalg.norm(samples):
        return None
    return np.asarray(centred / length)


def _aligned(one: Matrix | None, other: Matrix | None) -> float | None:
    return None if one is None or other is None else float((one * other).sum())
