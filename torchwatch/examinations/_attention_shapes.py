"""Attention weights in one shape, whoever computed them, and which keys a query may attend to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SUMS = 1e-3
"""How far a row of weights may be from a sum of 1."""

_MASKED = -5000.0  # masks are added to scores: minus infinity, the least number of the type, or -10,000


def of_samples(tensor: Tensor, samples: int) -> Tensor | None:
    """The tensor as (N, heads, queries, keys), floats as float32 or wider; None where it has no such shape.

    Understood are (N, heads, L, S); (N, L, S); (N·heads, L, S); windows (N·windows, heads, L, S), whose
    queries are put behind each other; further axes between the first and the heads, in the same
    way; and what is the same for all samples, with a first axis of 1 or none.

    Args:
        tensor: weights, or which of them are valid.
        samples: N.
    """
    if tensor.is_floating_point() and tensor.dtype != torch.float64:
        tensor = tensor.float()
    if tensor.dim() == 2:
        return tensor.expand(samples, 1, *tensor.shape) if samples else None
    if tensor.dim() == 3:
        count = tensor.shape[0]
        if count == 1 and samples > 1:
            return tensor.expand(samples, *tensor.shape[1:]).unsqueeze(1)
        return tensor.reshape(samples, -1, *tensor.shape[1:]) if count % samples == 0 else None
    if tensor.dim() > 4:
        tensor = tensor.flatten(0, -4)
    count, heads, queries, keys = tensor.shape
    if count == samples:
        return tensor
    if count == 1:
        return tensor.expand(samples, -1, -1, -1)
    if count % samples:
        return None
    split = tensor.reshape(samples, -1, heads, queries, keys).transpose(1, 2)
    return split.reshape(samples, heads, -1, keys)


def recomputed(
    query: Tensor, key: Tensor, mask: Tensor | None, *, is_causal: bool, scale: float | None
) -> tuple[Tensor, Tensor | None]:
    """Weights of ``scaled_dot_product_attention`` without its dropout, and which of them are valid.

    Args:
        query: (…, heads, L, E).
        key: (…, heads or a divisor of it, S, E): grouped queries share keys.
        mask: True where a key counts, or added to the scores; broadcastable to (…, heads, L, S).
        is_causal: query i sees keys up to i.
        scale: of the scores (default: 1/√E).

    Returns:
        Weights (…, heads, L, S), all 0 for a query without a valid key; valid, broadcastable, or None.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if query.dtype not in (torch.float32, torch.float64):
        query, key = query.float(), key.float()
    if query.dim() > 3 and key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = (query * scale) @ key.transpose(-2, -1)
    valid = None
    if is_causal:
        valid = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        mask = mask.detach()
        counts = mask if mask.dtype is torch.bool else mask > _MASKED
        valid = counts if valid is None else valid & counts
        if mask.dtype is not torch.bool:
            scores = scores + mask.to(scores.dtype)
    if valid is None:
        return scores.softmax(-1), None
    weights = scores.masked_fill(~valid, -math.inf).softmax(-1)
    return weights.masked_fill(~valid.any(-1, keepdim=True), 0.0), valid


def valid_of_scores(scores: Tensor) -> Tensor:
    """Where no mask was added; NaN counts as no mask."""
    return ~(scores <= _MASKED)


def valid_of_weights(weights: Tensor) -> Tensor | None:
    """Keys to which at least one head of a query gives weight, for (N, heads, L, S); None where it is all.

    Of returned weights the mask is not known, and heads share it; NaN is weight.
    """
    given = (~(weights <= 0)).any(1, keepdim=True).expand_as(weights)
    return None if bool(given.all()) else given


def looks_like_weights(tensor: Tensor, samples: int, *, known: bool) -> bool:
    """Whether a returned tensor may be attention: not negative, with rows that sum to 1.

    Args:
        tensor: what a module returned besides its output.
        samples: in the pass.
        known: whether the module is an attention by its name; of others only a square or a tensor with heads
            is believed, and no NaN.
    """
    if not tensor.is_floating_point() or tensor.dim() not in (3, 4) or not tensor.numel():
        return False
    if tensor.shape[0] % samples or (
        not known and tensor.dim() == 3 and tensor.shape[-1] != tensor.shape[-2]
    ):
        return False
    values = tensor.detach().float()
    rows = values.sum(-1)
    finite = rows[rows.isfinite()]
    if finite.numel() < rows.numel() and not known:
        return False
    return not bool((values < 0).any()) and bool(((finite - 1).abs() < SUMS).all())


def without_head(tensor: Tensor, head: int | None, heads: int) -> Tensor:
    """A copy with one head set to zero: of (…, heads, L, E), or of (N·heads, L, E); itself for None."""
    if head is None:
        return tensor
    twin = tensor.clone()
    if twin.dim() > 3:
        twin.select(-3, head).zero_()
    elif heads == 1:
        twin.zero_()
    else:
        twin.view(-1, heads, *twin.shape[1:])[:, head].zero_()
    return twin
