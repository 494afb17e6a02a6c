"""Attention of all samples of a case, a few samples at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchwatch.examinations._attention_calls import OBSERVED, Call, watching
from torchwatch.examinations._attention_numbers import Numbers, Tally, is_cross, numbers
from torchwatch.examinations._attention_pairs import Held, Pair, alignment, held, named, recognised
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.examination import NotApplicable

_ROWS = 16
_MOST_ELEMENTS = 1 << 24
"""Weights of one call in one chunk (64 MB as float32)."""
_MOST_KEPT = 1 << 26
"""Weights that are kept in full, all calls together (256 MB)."""
_MOST_CALLS = 512


@dataclass(slots=True, eq=False)
class Collected:
    """Attention of all samples.

    Attributes:
        tallies: by name, in the order of the pass.
        directions: of named and recognised streams, by name.
        pairs: both directions of two streams.
        alignment: of each pair (N,).
        unread: calls of a shape that was not understood, in the first pass.
        left_out: attentions beyond the first 512.
        weights: full weights of the first samples (n, H, L, S) on the CPU, where they were asked for.
    """

    tallies: dict[str, Tally]
    directions: dict[str, str]
    pairs: list[Pair]
    alignment: list[npt.NDArray[np.float64]]
    unread: int
    left_out: int
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Chunk:
    numbers: dict[str, Numbers] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)


def collect(case: Case, streams: Mapping[str, str] | None = None, *, keep: int = 0) -> Collected:
    """Run the samples through the model and add up what its attentions do.

    Args:
        case: model and samples.
        streams: see :func:`named`; None recognises pairs.
        keep: full weights of so many samples, fewer where they would fill more than 256 MB.

    Raises:
        NotApplicable: no attention was seen.
        UsageError: ``streams`` name what was not seen.
    """
    plan, rows = _survey(case, streams)
    count = len(case.samples)
    each = sum(h * q * k for h, q, k in (t.shape for t in plan.tallies.values()))
    keep = min(keep, count, max(1, _MOST_KEPT // max(each, 1)))
    members = {n for p in plan.pairs for n in (p.forward, p.backward)}
    aligned: list[list[npt.NDArray[np.float64]]] = [[] for _ in plan.pairs]
    kept: dict[str, list[Tensor]] = {name: [] for name in plan.tallies}

    def work(start: int, end: int) -> _Chunk:
        return _run(case, slice(start, end), plan, members, max(0, min(end, keep) - start))

    for _, end, chunk in in_chunks(work, count, rows):
        for name, new in chunk.numbers.items():
            plan.tallies[name].add(new)
        for i, pair in enumerate(plan.pairs):
            aligned[i].append(alignment(chunk.held[pair.forward], chunk.held[pair.backward]))
        for name, weights in chunk.kept.items():
            kept[name].append(weights)
        case.tick(end, count)
    plan.alignment = [np.concatenate(a) for a in aligned]
    plan.weights = {name: torch.cat(parts) for name, parts in kept.items() if parts}
    return plan


def _survey(case: Case, streams: Mapping[str, str] | None) -> tuple[Collected, int]:
    """One pass of two samples: which attentions there are, how large, and how many samples fit in a chunk."""
    calls: list[Call] = []
    count = min(2, len(case.samples))

    def note(call: Call) -> None:
        shape = call.weights.shape  # numbers of a weightless stand-in: only shapes are looked at here
        empty = call.weights.new_empty(()).expand(shape)
        calls.append(Call(call.name, call.source, empty, None, call.cross, call.ends))

    with watching(case.model, count, note) as watch, torch.no_grad():
        case.raw(_rows(case, slice(0, count)))
    if not calls:
        raise NotApplicable(
            f"no attention was seen in a pass ({OBSERVED}); attention in other kernels, such as "
            "flex_attention or FlashAttention's own, yields no weights: choose the model's eager or "
            "sdpa implementation"
        )
    left_out = max(0, len(calls) - _MOST_CALLS)
    calls = calls[:_MOST_CALLS]
    found = named(streams, [c.name for c in calls]) if streams else recognised(calls)
    tallies = {
        c.name: Tally(
            c.name, c.source, is_cross(c) or c.name in found[0], _shape(c)
        )
        for c in calls
    }  # fmt: skip
    largest = max(c.weights[0].numel() for c in calls)
    rows = max(1, min(_ROWS, case.options.chunk, _MOST_ELEMENTS // max(largest, 1)))
    return Collected(tallies, *found, [], watch.unread, left_out), rows


def _shape(call: Call) -> tuple[int, int, int]:
    heads, queries, keys = call.weights.shape[1:]
    return heads, queries, keys


def _rows(case: Case, rows: slice) -> dict[str, Tensor]:
    return {k: v[rows] for k, v in case.samples.inputs.items()}


def _run(case: Case, rows: slice, plan: Collected, members: set[str], keep: int) -> _Chunk:
    chunk = _Chunk()

    def note(call: Call) -> None:
        tally = plan.tallies.get(call.name)
        if tally is None or _shape(call) != tally.shape:
            return
        call.cross = tally.cross
        chunk.numbers[call.name] = numbers(call)
        if call.name in members:
            chunk.held[call.name] = held(call)
        if keep:
            chunk.kept[call.name] = call.weights[:keep].cpu().clone()

    case.check_time()
    with watching(case.model, rows.stop - rows.start, note), torch.no_grad():
        case.raw(_rows(case, rows))
    return chunk
