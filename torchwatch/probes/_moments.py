"""The numbers that describe one call of a layer: what they are, and the plain definition.

:func:`reference` is the contract. Faster ways (:mod:`torchwatch.probes._moments_cpu`) take the same
arguments and give the same values within rounding; where they disagree, the reference is right.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

MOMENTS = ("total", "square", "spread", "deviation", "absmax", "zeros", "nonfinite", "saturated")
"""Entries of :attr:`Moments.vector`, in order; see :func:`reference`."""

NEAR = 1e-2
"""An output this close to a bound of its function (absolute) is saturated."""

Bounds = tuple[float, float]
Vector = torch.Tensor | list[float]
Units = tuple[torch.Tensor, torch.Tensor]


class Arrangement(NamedTuple):
    """How the memory of a tensor is read: ``samples`` × ``outer`` × ``units`` × ``inner``, row-major.

    A **sample** is an index of the first axis. A **unit** is a channel or feature: what has weights of its
    own. ``outer`` and ``inner`` are positions (pixels, tokens) before and after the unit axis in memory:
    (B, C, H, W) is (B, 1, C, H·W), the same in channels-last memory (B, H·W, C, 1), tokens (B, T, D) are
    (B, T, D, 1), and (B, F) is (B, 1, F, 1). Without units all of it is ``inner``. A **feature** is one of
    the outer · units · inner entries of a sample.
    """

    samples: int
    outer: int
    units: int
    inner: int

    @property
    def features(self) -> int:
        """Entries of one sample."""
        return self.outer * self.units * self.inner


class Moments(NamedTuple):
    """What :func:`reference` gives.

    ``vector`` has len(MOMENTS) entries: a float64 tensor (float32 on devices without float64), or numbers
    where reading waits for nothing (the CPU's way). ``units`` are two float32 tensors of shape (units,),
    peaks and activity, or None.
    """

    vector: Vector
    units: Units | None


def reference(
    tensor: torch.Tensor,
    arrangement: Arrangement,
    *,
    per_unit: bool = False,
    bounds: Bounds | None = None,
    nonnegative: bool = False,  # noqa: ARG001 - for faster ways
) -> Moments:
    """The statistics of one tensor x of N entries; any device, never a synchronisation.

    Args:
        tensor: floating point, contiguous, ``arrangement.samples * arrangement.features`` entries in the
            order of the arrangement (:func:`arrange` makes both). float16 and bfloat16 are widened to float32
            entry by entry, everything is accumulated in float64 or with errors as small as a float32
            pairwise sum makes (relative 1e-6); ``spread`` and ``deviation`` must not be taken as
            differences of large sums: a spread of 1e-4 of the mean has to come out right to 1 %.
        arrangement: which entries belong to which sample, unit and position.
        per_unit: whether the units are wanted as well, see :func:`reference_units`.
        bounds: lower and upper bound of the function that made x, for ``saturated``; more than 0.02 apart.
        nonnegative: the promise that no entry is below 0 (NaN may be among them); it may be used or not.

    Returns:
        ``vector``, with m_f the mean of feature f over the samples and μ the mean of all entries:

        ====  ============  ==============================================================================
        0     total         Σx
        1     square        Σx²
        2     spread        Σ_f Σ_b (x_bf − m_f)², the part of the deviation that is within features
        3     deviation     Σ (x − μ)² = spread + samples · Σ_f (m_f − μ)²
        4     absmax        max |x|
        5     zeros         number of entries that are exactly 0
        6     nonfinite     number of entries that are NaN or ±Inf
        7     saturated     number of entries ≤ lower + 0.01 or ≥ upper − 0.01; NaN without bounds
        ====  ============  ==============================================================================

        A NaN in x makes 0–4 NaN; an infinity makes them infinite or NaN. Counts are exact either way, and a
        Σx² that does not fit into float32 is no infinity in x.
    """
    samples = arrangement.samples
    fine = _finest(tensor)
    x = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    rows = x.view(samples, -1)
    means = rows.sum(0, dtype=fine) / samples
    center = means.mean()
    spread = _square(rows - means.to(rows.dtype), fine)
    nothing = torch.full_like(center, math.nan)
    vector = torch.stack(
        [
            x.sum(dtype=fine), _square(x, fine), spread, spread + samples * _square(means - center, fine),
            x.abs().amax().to(fine), (x == 0).sum().to(fine), (~torch.isfinite(x)).sum().to(fine),
            nothing if bounds is None else _saturated(x, bounds).to(fine),
        ]
    )  # fmt: skip
    return Moments(vector, reference_units(tensor, arrangement) if per_unit else None)


def reference_units(tensor: torch.Tensor, arrangement: Arrangement) -> Units:
    """Peaks and activity of each unit, of a tensor as :func:`reference` takes it. Shapes (units,), float32.

    ``peaks[u]`` = max |x| over samples and positions of unit u (NaN if one of them is), ``activity[u]`` =
    mean |x| over the same.
    """
    samples, outer, units, inner = arrangement
    magnitudes = tensor.abs().view(samples * outer, units, inner)
    activity = magnitudes.sum((0, 2), dtype=_finest(tensor)) / (samples * outer * inner)
    return magnitudes.amax((0, 2)).float(), activity.float()


def arrange(tensor: torch.Tensor, axis: int | None) -> tuple[torch.Tensor, Arrangement]:
    """The entries in the order of memory where that keeps samples together, else a copy; how to read them.

    ``axis``: the axis of the units, from 1 on, or None. Channels-last tensors are read as they lie.
    """
    shape = tensor.shape
    if not shape:
        return tensor.reshape(1), Arrangement(1, 1, 1, 1)
    order = list(range(len(shape)))
    if not tensor.is_contiguous():
        order[1:] = sorted(order[1:], key=tensor.stride, reverse=True)
        tensor = tensor.permute(order).contiguous()
    if axis is None:
        return tensor, Arrangement(shape[0], 1, 1, math.prod(shape[1:]))
    place = order.index(axis)
    outer = math.prod(shape[d] for d in order[1:place])
    return tensor, Arrangement(shape[0], outer, shape[axis], math.prod(shape[d] for d in order[place + 1 :]))


def _finest(tensor: torch.Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _square(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Σx², every entry widened before it is squared."""
    norm: torch.Tensor = torch.linalg.vector_norm(tensor, dtype=dtype)
    return norm * norm


def _saturated(tensor: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    low, high = bounds
    return ((tensor <= low + NEAR) | (tensor >= high - NEAR)).sum()
