"""The numbers of attention weights: per sample and head, summed up over chunks of samples.

Full weights live only while their call is looked at; what stays is (N, H), one mean map over heads and
samples, and one coarse map per head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from torchwatch.examinations._attention_calls import Call
from torchwatch.probes._attention import IGNORED
from torchwatch.statistics.metrics import over

Floats = npt.NDArray[np.float64]

CELLS = 64
TOP = 3
"""Largest weights that are kept of each sample."""
_SMALL = 1e-30
_MOST_MAP = 1 << 24
"""No mean map of more places than these (64 MB)."""
_CROSS = re.compile(r"cross|enc_?dec|encoder_attn|src_attn|[a-z]2[a-z]|_to_")

FOCUSED = (0.7, 0.4, 0.8)
"""Largest weight above, entropy below, sparsity above."""
DIFFUSE = (0.4, 0.8, 0.3)
"""Largest weight below, entropy above, sparsity below."""


@dataclass(slots=True, eq=False)
class Numbers:
    """Of one call on one chunk of n samples.

    Attributes:
        per_head: entropy, largest weight, sparsity, mean, std, weight of the first key (6, n, H); NaN for a
            sample without a row that counts, or with NaN in one.
        nan: samples with NaN (n,).
        top: query, key and weight of the largest, mean over heads (3, n, k).
        total: sum over samples without NaN of the mean over heads (L, S); None where it would be too large.
        coarse: the same of each head in cells (H, ≤ 64, ≤ 64).
        reached: in how many samples a cell's keys were valid anywhere (≤ 64, ≤ 64).
        fine: number of samples summed.
    """

    per_head: Floats
    nan: npt.NDArray[np.bool_]
    top: Floats
    total: Tensor | None
    coarse: Tensor
    reached: Tensor
    fine: int


def is_cross(call: Call) -> bool:
    """Whether keys come from another sequence: seen, told from sizes, or by the module's name."""
    if call.cross is not None:
        return call.cross
    return call.weights.shape[-1] != call.weights.shape[-2] or bool(
        _CROSS.search(".".join(call.name.lower().split(".")[-2:]))
    )


def numbers(call: Call) -> Numbers:
    """Everything that is kept of a call."""
    weights, valid = call.weights, call.valid
    rows = counted_rows(call)
    counts = rows.any(1)
    parts = _of_rows(weights, valid)
    rows = rows.expand(weights.shape[:-1])
    broken = (parts[4].isnan() & rows).any(-1).any(-1)
    sums = parts.where(rows, 0.0).double().sum(-1)
    means = sums[:4] / rows.sum(-1).double()
    mean = sums[4] / sums[6]
    std = (sums[5] / sums[6] - mean.square()).clamp_min(0).sqrt()
    per_head = torch.stack([means[0], means[1], means[2], mean, std, means[3]])
    per_head[:, broken] = torch.nan
    kept = rows & ~broken[:, None, None]
    clean = weights if bool(kept.all()) else weights.masked_fill(~kept[..., None], 0.0)
    average = clean.mean(1)
    allowed = (counts & ~broken[:, None])[..., None]
    allowed = allowed.expand_as(average) if valid is None else allowed & valid.any(1)
    return Numbers(
        per_head.cpu().numpy(),
        broken.cpu().numpy(),
        _top(average).cpu().numpy(),
        average.sum(0) if average[0].numel() <= _MOST_MAP else None,
        cells(clean.sum(0)),
        cells(allowed.to(average.dtype).sum(0)[None])[0],
        int((~broken).sum()),
    )


def _of_rows(weights: Tensor, valid: Tensor | None) -> Tensor:
    """Entropy, largest, sparsity, first, sum, sum of squares, valid keys of each row (7, n, H, L)."""
    most = weights.amax(-1)
    keys = torch.full_like(most, weights.shape[-1]) if valid is None else valid.sum(-1).to(weights)
    ignored = weights < (IGNORED / keys.clamp_min(1))[..., None]
    if valid is not None:
        ignored &= valid
    # torch.special.entr costs three times as much on the CPU
    entropy = -weights.clamp_min(_SMALL).log_().mul_(weights).sum(-1)
    return torch.stack(
        [
            entropy / keys.clamp_min(2).log(),
            most,
            ignored.sum(-1, dtype=weights.dtype) / keys.clamp_min(1),
            weights[..., 0],
            weights.sum(-1),
            torch.linalg.vector_norm(weights, dim=-1).square(),
            keys.expand_as(most),
        ]
    )


def counted_rows(call: Call) -> Tensor:
    """Rows that say something, (N, 1 or H, L): two valid keys or more, and in self-attention no padding."""
    valid = call.valid
    if valid is None:
        shape = call.weights.shape
        return torch.full((shape[0], 1, shape[2]), shape[3] > 1, device=call.weights.device)
    rows = valid.sum(-1) > 1
    if not is_cross(call) and valid.shape[-1] == valid.shape[-2]:
        rows = rows & valid.any(-2)  # nobody may look at a place of padding
    return rows


def cells(maps: Tensor) -> Tensor:
    """Maps (C, L, S) as means over cells, at most 64 × 64 of them."""
    width = [-(-size // CELLS) for size in maps.shape[-2:]]
    return functional.avg_pool2d(maps.float()[None], width, width, ceil_mode=True, count_include_pad=False)[0]


def _top(average: Tensor) -> Tensor:
    """Query, key and weight of the largest weights of each sample (3, n, k); −1 where there is none."""
    keys = average.shape[-1]
    flat = average.flatten(1)
    values, places = flat.topk(min(TOP, flat.shape[1]), 1)
    nothing = values <= 0
    found = torch.stack([places // keys, places % keys]).double().masked_fill(nothing, -1)
    return torch.cat([found, values.double().masked_fill(nothing, torch.nan)[None]])


@dataclass(slots=True, eq=False)
class Tally:
    """One attention over all chunks."""

    name: str
    source: str
    cross: bool
    shape: tuple[int, int, int]
    per_head: list[Floats] = field(default_factory=list)
    nan: int = 0
    top: list[Floats] = field(default_factory=list)
    total: Tensor | None = None
    coarse: Tensor | None = None
    reached: Tensor | None = None
    fine: int = 0

    def add(self, new: Numbers) -> None:
        """One more chunk."""
        self.per_head.append(new.per_head)
        self.top.append(new.top)
        self.nan += int(new.nan.sum())
        self.fine += new.fine
        if new.total is not None:
            self.total = new.total if self.total is None else self.total + new.total
        self.coarse = new.coarse if self.coarse is None else self.coarse + new.coarse
        self.reached = new.reached if self.reached is None else self.reached + new.reached

    @property
    def each(self) -> Floats:
        """The numbers per sample and head (6, N, H)."""
        return np.concatenate(self.per_head, 1)

    @property
    def tops(self) -> Floats:
        """Query, key and weight of the largest of each sample (3, N, k)."""
        return np.concatenate(self.top, 1)

    def maps(self) -> Floats:
        """Mean map of each head in cells (H, ≤ 64, ≤ 64); NaN where no sample has a valid key."""
        assert self.coarse is not None
        assert self.reached is not None
        mean = (self.coarse / max(self.fine, 1)).masked_fill(self.reached == 0, torch.nan)
        return mean.double().cpu().numpy()

    def pairs(self, most: int = 10) -> list[tuple[int, int, float]]:
        """Query, key and mean weight of the largest mean weights."""
        if self.total is None or not self.fine:
            return []
        keys = self.total.shape[-1]
        values, places = (self.total / self.fine).flatten().topk(min(most, self.total.numel()))
        found = zip(values.tolist(), places.tolist(), strict=True)
        return [(p // keys, p % keys, v) for v, p in found if v > 0]


def pattern(entropy: float, most: float, sparsity: float) -> str:
    """``focused``, ``diffuse`` or ``mixed``; ``unknown`` where a number is NaN. Only a description."""
    if not np.isfinite([entropy, most, sparsity]).all():
        return "unknown"
    if most > FOCUSED[0] and entropy < FOCUSED[1] and sparsity > FOCUSED[2]:
        return "focused"
    if most < DIFFUSE[0] and entropy > DIFFUSE[1] and sparsity < DIFFUSE[2]:
        return "diffuse"
    return "mixed"


def nanmean(values: Floats, axis: int) -> Floats:
    """Mean of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    return over(np.where(finite, values, 0.0).sum(axis), finite.sum(axis))
