"""Pairs of streams that look at one another: a→b and b→a, and how well they agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchwatch.errors import UsageError
from torchwatch.examinations._attention_calls import Call
from torchwatch.examinations._attention_numbers import counted_rows, is_cross

Floats = npt.NDArray[np.float64]

ARROW = "→"
STRONG, CONFLICT = 0.6, 0.2
_DIRECTION = re.compile(r"(?:^|_)([a-z0-9]+?)(?:_to_|2|_from_)([a-z0-9]+)(?:_|$)")


@dataclass(frozen=True, slots=True)
class Pair:
    """Streams a and b, and the names of the attentions a→b and b→a."""

    a: str
    b: str
    forward: str
    backward: str


def named(streams: Mapping[str, str], calls: Sequence[str]) -> tuple[dict[str, str], list[Pair]]:
    """Directions and pairs that the user named.

    Args:
        streams: direction → attention, as ``{"audio->video": "cross.av", "video->audio": "cross.va"}``, or
            with two streams the one that asks: ``{"audio": "cross.av", "video": "cross.va"}``. The attention
            is a name that was seen, or that of a module with one attention inside.
        calls: names of the attentions that were seen.

    Returns:
        Direction of each attention by its name, and the pairs with both directions.

    Raises:
        UsageError: a name that was not seen, or directions that cannot be understood.
    """
    directions = {}
    for label, path in streams.items():
        ends = [e.strip() for e in re.split(r"->|→", label)]
        if len(ends) == 1 and len(streams) == 2:
            ends.append(next(s for s in streams if s != label))
        if len(ends) != 2 or not all(ends):
            raise UsageError(
                f"streams must name a direction such as 'audio->video', or exactly two streams, not {label!r}"
            )
        directions[_seen(path, calls)] = (ends[0], ends[1])
    by_ends = {ends: name for name, ends in directions.items()}
    pairs = [
        Pair(a, b, name, by_ends[b, a]) for (a, b), name in by_ends.items()
        if (b, a) in by_ends and list(by_ends).index((a, b)) < list(by_ends).index((b, a))
    ]  # fmt: skip
    return {name: f"{a}{ARROW}{b}" for name, (a, b) in directions.items()}, pairs


def _seen(path: str, calls: Sequence[str]) -> str:
    inside = [c for c in calls if c == path] or [c for c in calls if c.startswith(f"{path}.")]
    if len(inside) == 1:
        return inside[0]
    known = ", ".join(calls[:12]) + (" …" if len(calls) > 12 else "")
    if inside:
        raise UsageError(f"streams: {path!r} holds {len(inside)} attentions, name one of {', '.join(inside)}")
    raise UsageError(f"streams: no attention was seen in {path!r}; there are {known}")


def recognised(calls: Sequence[Call]) -> tuple[dict[str, str], list[Pair]]:
    """Directions and pairs without being told.

    Two attentions are a pair where one's queries are the other's keys, as tensors; or where their names say
    it (``audio_to_video`` and ``video_to_audio``, ``a2v`` and ``v2a``) and their sizes fit.
    """
    crosses = [c for c in calls if is_cross(c)]
    directions: dict[str, str] = {}
    pairs: list[Pair] = []
    for i, call in enumerate(crosses):
        for other in crosses[i + 1 :]:
            if call.name in directions or other.name in directions:
                continue
            ends = _ends(call, other)
            if ends is None:
                continue
            a, b = ends
            directions |= {call.name: f"{a}{ARROW}{b}", other.name: f"{b}{ARROW}{a}"}
            pairs.append(Pair(a, b, call.name, other.name))
    return directions, pairs


def _ends(call: Call, other: Call) -> tuple[str, str] | None:
    """Names of the streams; None where the two are no pair."""
    if call.weights.shape[-2:] != other.weights.shape[-2:][::-1]:
        return None
    said, back = _said(call.name), _said(other.name)
    if said is not None and back is not None and said == back[::-1] and _parent(call) == _parent(other):
        return said
    if call.ends is not None and other.ends is not None and call.ends == other.ends[::-1]:
        return "queries of " + call.name, "queries of " + other.name
    return None


def _said(name: str) -> tuple[str, str] | None:
    found = _DIRECTION.search(name.partition("#")[0].rpartition(".")[2].lower())
    return None if found is None or found[1] == found[2] else (found[1], found[2])


def _parent(call: Call) -> str:
    return call.name.rpartition(".")[0]


@dataclass(slots=True, eq=False)
class Held:
    """What is held of one direction until the other is there: means over heads (n, L, S), what is valid."""

    mean: Tensor
    valid: Tensor


def held(call: Call) -> Held:
    """Of one chunk, on its device."""
    rows = counted_rows(call).any(1)[..., None]
    valid = rows.expand(call.weights.shape[0], -1, call.weights.shape[-1])
    if call.valid is not None:
        valid = valid & call.valid.any(1)
    return Held(call.weights.mean(1).double(), valid)


def alignment(forward: Held, backward: Held) -> Floats:
    """Pearson correlation of a→b with the transpose of b→a over what both may attend to, per sample (n,).

    In [−1, 1]; NaN where one of them is constant, where they have fewer than two places in common, or NaN.

    Raises:
        UsageError: their sizes do not fit.
    """
    there, back = forward.mean, backward.mean.transpose(-2, -1)
    if there.shape != back.shape:
        raise UsageError(
            "streams: attentions of {} and {} places are no pair a→b and b→a".format(
                *(" × ".join(map(str, h.mean.shape[1:])) for h in (forward, backward))
            )
        )
    valid = forward.valid & backward.valid.transpose(-2, -1)
    count = valid.sum((1, 2)).clamp_min(1)[:, None, None]
    x, y = (t.masked_fill(~valid, 0.0) for t in (there, back))
    x, y = ((t - t.sum((1, 2), keepdim=True) / count).masked_fill(~valid, 0.0) for t in (x, y))
    size = (x.square().sum((1, 2)) * y.square().sum((1, 2))).sqrt()
    # what is left of a constant after rounding is no variation
    flat = size <= 1e-12 * count[:, 0, 0]
    result = ((x * y).sum((1, 2)) / size).clamp(-1, 1).masked_fill(flat, torch.nan)
    return result.cpu().numpy()


def agreement(mean: float) -> str:
    """``strong`` above 0.6, ``conflict`` below 0.2, else ``partial``; ``unknown`` for NaN."""
    if not np.isfinite(mean):
        return "unknown"
    return "strong" if mean > STRONG else "conflict" if mean < CONFLICT else "partial"
