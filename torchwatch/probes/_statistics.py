"""The numbers that describe an output, by the cheapest kernels there are; several calls are pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchwatch.probe import Values
from torchwatch.records import MISSING


def pooled(calls: list[tuple[int, int, Values]]) -> dict[str, Any]:
    """Statistics of all calls of a layer together, from sums."""
    count = sum(n for n, _, _ in calls)
    table = np.array([v for _, _, v in calls])
    total, square, low, high, nonzero, bad, _ = table.T
    mean, power = total.sum() / count, square.sum() / count
    rms = np.sqrt(power)
    spreads = [
        np.sqrt(max((v[1] / n - v[6]) * batch / (batch - 1), 0.0)) if np.isfinite(v[1]) else np.nan
        for n, batch, v in calls
        if batch > 1
    ]
    return {
        "mean": mean,
        "std": np.sqrt(max(power - mean**2, 0.0)) if np.isfinite(power) else np.nan,
        "rms": rms,
        "zero_fraction": max(1 - nonzero.sum() / count, 0.0),
        "batch_std": MISSING if not spreads else (np.mean(spreads) / rms if rms > 0 else 0.0),
        "absmax": max(abs(low.min()), abs(high.max())) if not np.isnan(low).any() else np.nan,
        "nonfinite": bad.sum(),
    }


def summary(tensor: torch.Tensor) -> torch.Tensor:
    """[sum, Σx², min, max, nonzero, non-finite, Σ_f mean_batch(x_f)²/F] by the cheapest kernels there are.

    ``count_nonzero`` and ``isfinite().sum()`` cost 10–30 reads on the CPU; ``sign`` and ``0·x`` cost two.
    """
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    flat = _flat(wide)
    low, high = torch.aminmax(flat)
    signs = flat.sign()
    holes = (flat * 0).nan_to_num_(nan=1.0)
    rows = tensor.shape[0] if tensor.dim() else 1
    matrix = flat.view(rows, -1) if flat.numel() % rows == 0 else flat.view(1, -1)
    means = torch.mv(matrix.t(), matrix.new_full((matrix.shape[0],), 1 / matrix.shape[0]))
    return torch.stack(
        [
            flat.sum(), torch.dot(flat, flat), low, high, torch.dot(signs, signs), holes.sum(),
            torch.dot(means, means) / max(means.numel(), 1),
        ]
    )  # fmt: skip


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All elements in one dimension, in memory order (no copy for channels-last), samples kept together."""
    if tensor.is_contiguous() or tensor.dim() < 2:
        return tensor.reshape(-1)
    order = [0, *sorted(range(1, tensor.dim()), key=tensor.stride, reverse=True)]
    return tensor.permute(order).reshape(-1)


def peaks(tensor: torch.Tensor, *, channels_first: bool) -> torch.Tensor | None:
    """Largest |activation| per unit over samples and positions. Shape (units,), float32.

    A unit is a channel of a convolution, else a feature (last axis).
    """
    if tensor.dim() < 2:
        return None
    axis = 1 if tensor.dim() == 2 or tensor.dim() >= 4 or channels_first else tensor.dim() - 1
    others = [d for d in range(tensor.dim()) if d != axis]
    return tensor.abs().amax(others).float()
