"""How many entries of a tensor lie between which powers of two.

The bucket of a number is read off its bits: the exponent of a float is the whole part of its base-two
logarithm. So there is no search, no range to know beforehand, and nothing to wait for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from torchwatch.probe import Values

MOST = 1 << 16
"""Entries that are counted, evenly spaced in memory."""

SPAN = 20
"""Powers of two below the largest entry's that have buckets of their own."""

_EXPONENTS = 256
_BIAS = 127
_NONFINITE = 255


def counts(tensor: torch.Tensor) -> torch.Tensor:
    """Entries per sign and exponent of up to 65,536 evenly spaced ones. Shape (512,), int32.

    Index: biased exponent of float32 (0: zero and subnormal, 255: not finite), plus 256 where negative.
    Wider numbers are rounded to float32 first.
    """
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    flat = tensor.permute(order).reshape(-1)  # in memory order: no copy where it is dense
    # an odd step, or every sample of an even axis would show the same places
    step = -(-flat.numel() // MOST) | 1
    bits = flat[::step].to(torch.float32).view(torch.int32)
    places = ((bits >> 23) & (2 * _EXPONENTS - 1)).to(torch.int64)
    empty = torch.zeros(2 * _EXPONENTS, dtype=torch.int32, device=flat.device)
    return empty.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))


def histogram(counted: Values) -> dict[str, Any]:
    """``edges``, ``counts`` and ``nonfinite`` of one tensor, from what :func:`counts` counted.

    Edges are signed powers of two in ascending order, one more than counts. A positive bucket holds its lower
    edge, a negative one its upper edge; the middle one holds zeros and what is smaller than 2⁻¹⁹ of the
    largest entry's power of two.
    """
    table = np.asarray(counted, np.float64).reshape(2, _EXPONENTS)
    result: dict[str, Any] = {"nonfinite": int(table[:, _NONFINITE].sum())}
    finite = table[:, :_NONFINITE]
    used = np.flatnonzero(finite[:, 1:].sum(0)) + 1
    high = int(used[-1]) if used.size else _BIAS
    low = max(int(used[0]) if used.size else _BIAS, high - SPAN + 1)
    positive, negative = finite[0, low : high + 1], finite[1, low : high + 1]
    middle = finite[:, :low].sum()
    edges = [math.ldexp(1.0, e - _BIAS) for e in range(low, high + 2)]
    result["edges"] = [-edge for edge in reversed(edges)] + edges
    result["counts"] = [int(n) for n in (*negative[::-1], middle, *positive)]
    return result
