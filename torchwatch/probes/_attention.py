"""Attention weights of a few query rows, recomputed or returned, and the numbers that describe them.

Everything is cut out by slices and stays on the device: an index that is copied there would wait for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torchwatch.probe import Values

ROWS = 8
BATCHES = 4
BINS = 64
IGNORED = 0.01
"""A key is ignored by a query when its weight is below this part of a uniform one."""

_MOST_KEYS = 1 << 21
"""Numbers that are read of the keys, unless one entry of the batch has more: then that one is."""

_SMALL = 1e-30
_MASKED = -9999.0  # additive masks: minus infinity, the least number of the type, or -10,000


@dataclass(slots=True, eq=False)
class Rows:
    """Weights of sampled rows. Shapes: weights (batch, heads, rows, keys); valid the same, or broadcastable.

    ``positions`` are the indices of the rows among all ``queries``.
    """

    weights: torch.Tensor
    valid: torch.Tensor | None
    queries: int
    positions: range


def spread(length: int, most: int) -> slice:
    """At most ``most`` evenly spaced places of an axis, the last one among them."""
    step = max(-(-length // most), 1)
    return slice((length - 1) % step, None, step)


def recomputed(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Rows | None:
    """Weights of ``scaled_dot_product_attention`` without dropout; None where the shapes are not understood.

    Of tensors with more than four axes the first entry of each axis between batch and heads is taken; of
    those with three the first axis counts as the batch of one head. Grouped queries (fewer key than query
    heads) are as with ``enable_gqa``.
    """
    if query.dim() < 2 or key.dim() != query.dim():
        return None
    if mask is not None:
        mask = mask.expand(*query.shape[:-1], key.shape[-2])
    query, key = _four_axes(query), _four_axes(key)
    heads, queries = query.shape[1:3]
    rows = spread(queries, ROWS)
    batches = spread(query.shape[0], min(max(_MOST_KEYS // max(key[0].numel(), 1), 1), BATCHES))
    if heads % key.shape[1] or key.shape[0] not in (1, query.shape[0]):
        return None
    picked = _wide(query[batches, :, rows])
    keys = _wide(key[batches] if key.shape[0] > 1 else key)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    grouped = (picked * scale).reshape(picked.shape[0], key.shape[1], -1, query.shape[-1])
    # keys first: half the time on the CPU, where this order needs no copy of them
    scores = (keys @ grouped.transpose(-2, -1)).transpose(-2, -1).reshape(*picked.shape[:3], -1)
    valid = None
    if is_causal:
        places = torch.arange(queries, device=scores.device)[rows, None]
        valid = torch.arange(scores.shape[-1], device=scores.device) <= places
    elif mask is not None:
        mask = _four_axes(mask)[batches, :, rows]
        valid = mask if mask.dtype is torch.bool else mask > _MASKED
        if mask.dtype is not torch.bool:
            scores = scores + mask
    if valid is not None:
        scores = scores.masked_fill(~valid, -math.inf)
    return Rows(scores.softmax(-1), valid, queries, range(*rows.indices(queries)))


def returned(weights: torch.Tensor) -> Rows:
    """Rows of weights that a module returned: (batch, heads, queries, keys), or without heads or batch.

    Dropout may have been applied to them: what is left of a row is scaled to a sum of 1, and its zeros count
    as keys that are not valid.
    """
    weights = _four_axes(weights)
    rows = spread(weights.shape[2], ROWS)
    picked = _wide(weights[spread(weights.shape[0], BATCHES), :, rows])
    valid = ~(picked <= 0)  # NaN is no zero
    return Rows(
        picked / picked.sum(-1, keepdim=True), valid, weights.shape[2], range(*rows.indices(weights.shape[2]))
    )


def plausible(weights: torch.Tensor) -> torch.Tensor:
    """[min, mean row sum] of what may be attention weights. Shape (2,)."""
    weights = _four_axes(weights)
    picked = _wide(weights[spread(weights.shape[0], BATCHES), :, spread(weights.shape[2], ROWS)])
    return torch.stack([picked.amin(), picked.sum(-1).mean()])


def summary(rows: Rows) -> torch.Tensor:
    """Per head, over the rows with two valid keys or more: [rows, Σ entropy, Σ max, Σ ignored].

    Entropy is divided by the logarithm of the number of valid keys: 1 is uniform, 0 is one key. Shape
    (4, heads).
    """
    weights = rows.weights
    # torch.special.entr costs three times as much on the CPU
    entropy = -(weights * weights.clamp_min(_SMALL).log()).sum(-1)
    most = weights.amax(-1)
    if rows.valid is None:
        keys = torch.full_like(most, weights.shape[-1])
        ignored = weights < IGNORED / max(weights.shape[-1], 1)
    else:
        keys = rows.valid.sum(-1).to(most.dtype).expand_as(most)
        ignored = (weights * keys.unsqueeze(-1) < IGNORED) & rows.valid
    counts = keys > 1
    parts = [
        torch.ones_like(most), entropy / keys.log(), most, ignored.sum(-1) / keys,
    ]  # fmt: skip
    return torch.stack([part.where(counts, 0.0).sum((0, 2)) for part in parts])


def pattern(rows: Rows) -> tuple[torch.Tensor, int]:
    """Weights of the first batch entry, mean over heads, keys added up in at most 64 bins; keys per bin."""
    mean = rows.weights[0].mean(0)
    width = max(-(-mean.shape[-1] // BINS), 1)
    short = -mean.shape[-1] % width
    if short:
        mean = torch.nn.functional.pad(mean, (0, short))
    return mean.view(mean.shape[0], -1, width).sum(-1), width


def per_head(calls: list[Values]) -> dict[str, list[float | None]]:
    """Means per head over several calls, to four decimals; None for a head without a row that counts."""
    total = np.sum([call.reshape(4, -1) for call in calls], axis=0)
    count = total[0]
    return {
        name: [round(float(s / n), 4) if n else None for s, n in zip(total[i], count, strict=True)]
        for i, name in ((1, "entropy"), (2, "max"), (3, "sparsity"))
    }


def _four_axes(tensor: torch.Tensor) -> torch.Tensor:
    while tensor.dim() > 4:
        tensor = tensor[:, 0]
    if tensor.dim() == 3:
        return tensor.unsqueeze(1)
    return tensor[None, None] if tensor.dim() == 2 else tensor


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``scaled_dot_product_attention`` by name."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    return {**dict(zip(names, args, strict=False)), **kwargs}
