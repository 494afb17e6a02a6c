"""Level and range of a tensor of any type: what inputs and targets are described by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from torchwatch.probe import Values

Call = tuple[list[int], str, Values]
"""Shape, type and :func:`numbers` of one tensor; of several calls the same number of each."""


def numbers(tensor: torch.Tensor) -> torch.Tensor | None:
    """[std, mean, min, max, non-finite] of a floating tensor, [min, max] of whole numbers, else None."""
    if tensor.is_complex() or tensor.dtype is torch.bool or tensor.numel() == 0:
        return None
    if not tensor.is_floating_point():
        return torch.stack(torch.aminmax(tensor))
    flat = tensor.reshape(-1)
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    # the cheapest kernels there are: std_mean() and isfinite() cost many times as much on the CPU
    mean = flat.mean()
    centred = flat - mean
    std = (torch.dot(centred, centred) / flat.numel()).sqrt()
    if flat.is_cpu and math.isfinite(float(std)):  # reading it waits for nothing there
        holes = torch.zeros_like(std)
    else:
        holes = torch.mul(flat, 0, out=centred).nan_to_num_(nan=1.0).sum()
    return torch.stack([std, mean, *torch.aminmax(flat), holes])


def described(calls: list[Call]) -> dict[str, Any]:
    """Shape (of the first call), type and statistics of one tensor over several calls.

    ``low`` and ``high`` where there are numbers; a floating one also has ``mean``, ``std`` (of the
    population), ``absmax`` and ``nonfinite`` (a count).
    """
    shape, dtype, first = calls[0]
    words: dict[str, Any] = {"shape": shape, "dtype": dtype}
    same = [(math.prod(s), v) for s, _, v in calls if v.size == first.size]
    if first.size == 2:
        words["low"] = int(min(v[0] for _, v in same))
        words["high"] = int(max(v[1] for _, v in same))
    elif first.size:
        table = np.array([v for _, v in same], np.float64)
        weights = np.array([n for n, _ in same], np.float64)
        words |= _pooled(table, weights / weights.sum())
    return words


def _pooled(table: Values, weights: Values) -> dict[str, Any]:
    std, mean, low, high, holes = table.T
    with np.errstate(invalid="ignore", over="ignore"):
        level = float(weights @ mean)
        power = float(weights @ (std**2 + (mean - level) ** 2))
        least, most = float(np.min(low)), float(np.max(high))
    return {
        "low": least,
        "high": most,
        "mean": level,
        "std": math.sqrt(power) if power >= 0 else math.nan,
        "absmax": max(abs(least), abs(most)) if least <= most else math.nan,
        "nonfinite": int(holes.sum()),
    }
