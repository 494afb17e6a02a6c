"""Samples that are there twice: exact copies, near ones, and windows that share a stretch."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._data_reading import Split
from torchwatch.examinations._data_values import moments
from torchwatch.results.data_quality import Copies, GroupOverlap, Overlap

NEAR = 0.05
"""Root mean square difference of two samples, in standard deviations of the channels, that is near."""
_LISTED = 20
_LEAST_ENTRIES = 16
"""Samples of fewer entries are near one another by chance."""
_MOST_NEAR = 5_000
_PROJECTIONS = 32
_LEAST_SHARED = 4
_NAMED = 50

Pair = tuple[str, int, str, int]
Hashes = npt.NDArray[np.uint64]


def copies(data: Split, train: Split | None, rng: np.random.Generator) -> Copies:
    """Exact and near duplicates."""
    splits = [data] if train is None else [train, data]  # the training sample is the original
    seen: dict[bytes, tuple[Split, int]] = {}
    within, across, conflicting = {"data": 0, "train": 0}, 0, 0
    examples: dict[bool, list[Pair]] = {True: [], False: []}
    copied: set[tuple[str, int]] = set()
    for split in splits:
        own: set[bytes] = set()
        for place, digest in enumerate(_digests(split)):
            original = seen.setdefault(digest, (split, place))
            if original != (split, place):
                copied.add((split.name, place))
                within[split.name] += digest in own
                across += original[0] is not split
                conflicting += _differ(original, (split, place))
                examples[original[0] is split].append(_pair(split, place, *original))
            own.add(digest)
    near_within, near_across, near = _near(data, train, copied, rng)
    return Copies(
        within["data"],
        None if train is None else within["train"],
        None if train is None else across,
        conflicting,
        tuple((examples[False][: _LISTED // 2] + examples[True])[:_LISTED]),
        near_within,
        near_across,
        tuple(near[:_LISTED]),
    )


def _digests(split: Split) -> list[bytes]:
    arrays = [np.ascontiguousarray(_bytes_of(t)) for _, t in sorted(split.samples.inputs.items())]
    return [
        hashlib.blake2b(b"".join(a[i].tobytes() for a in arrays), digest_size=16).digest()
        for i in range(len(split))
    ]


def _bytes_of(tensor: Any) -> npt.NDArray[Any]:
    wide = tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor
    array: npt.NDArray[Any] = wide.numpy()
    return array + 0.0 if array.dtype.kind == "f" else array  # −0 becomes 0


def _pair(split: Split, place: int, other: Split, original: int) -> Pair:
    return split.name, int(split.samples.index[place]), other.name, int(other.samples.index[original])


def _differ(one: tuple[Split, int], other: tuple[Split, int]) -> bool:
    (a, i), (b, j) = one, other
    if a.y is None or b.y is None:
        return False
    same = np.isclose(a.y[i], b.y[j], rtol=1e-6, atol=0.0, equal_nan=True)
    return not bool(np.all(same))


# ---------------------------------------------------------------------- near


def _near(
    data: Split, train: Split | None, copied: set[tuple[str, int]], rng: np.random.Generator
) -> tuple[int | None, int | None, list[Pair]]:
    """Pairs whose difference is small, found by a random projection and then looked at in full."""
    if data.x is None or data.x[0].size < _LEAST_ENTRIES:
        return None, None, []
    mean, std = moments(data.x)
    scale = np.where(std > 0, std, np.inf).astype(np.float32)[:, None]
    center = np.where(np.isfinite(mean), mean, 0.0).astype(np.float32)[:, None]
    directions = rng.standard_normal((data.x[0].size, _PROJECTIONS)).astype(np.float32)
    originals = [data] if train is None else [data, train]
    thrown = {s.name: _thrown(s, center, scale, directions) for s in originals}
    counts: dict[str, set[int]] = {s.name: set() for s in originals}
    pairs: list[Pair] = []
    for other in originals:
        for i, j in _close(thrown["data"], thrown[other.name], same=other is data):
            if ("data", i) in copied or i in counts[other.name]:
                continue
            assert other.x is not None
            gap = np.sqrt(np.mean(np.square((data.x[i] - other.x[j]) / scale)))
            if 0 < gap <= NEAR:
                counts[other.name].add(i)
                pairs.append(_pair(data, i, other, j))
    return len(counts["data"]), None if train is None else len(counts["train"]), pairs


def _thrown(split: Split, center: Any, scale: Any, directions: Any) -> npt.NDArray[np.float32]:
    """Random projections of the standardised samples, per entry of a sample; at most 5,000 samples."""
    assert split.x is not None
    parts = []
    for start in range(0, min(len(split), _MOST_NEAR), 64):
        z = np.nan_to_num((split.x[start : start + 64] - center) / scale, posinf=0.0, neginf=0.0)
        parts.append(z.reshape(len(z), -1) @ directions / np.sqrt(np.float32(z[0].size)))
    return np.concatenate(parts).astype(np.float32)


def _close(a: Any, b: Any, *, same: bool) -> list[tuple[int, int]]:
    """Pairs (i, j) whose projections are as near as a near pair's are, but for one in a thousand; j < i.

    For a difference of root mean square d the squared distance of the projections is d² times a chi-squared
    variable of 32 degrees of freedom, below 62.5 with a probability of 0.999.
    """
    limit = NEAR**2 * 62.5
    found: list[tuple[int, int]] = []
    for start in range(0, len(a), 256):
        part = a[start : start + 256]
        squares = (part**2).sum(1)[:, None] + (b**2).sum(1) - 2 * part @ b.T
        rows, columns = np.nonzero(squares <= limit + 1e-4)
        keep = columns < rows + start if same else slice(None)
        found += zip((rows + start)[keep].tolist(), columns[keep].tolist(), strict=True)
    return found[:100_000]


# ---------------------------------------------------------------------- windows


def overlap(data: Split, train: Split | None) -> Overlap | None:
    """Windows whose tail is the head of another; None without a time or token axis of at least 8 bins."""
    hashes = _column_hashes(data)
    if hashes is None or hashes.shape[1] < 8:
        return None
    before, after = data.pairs()
    shifts = [_shift(hashes[i], hashes[j]) for i, j in zip(before.tolist(), after.tolist(), strict=True)]
    moved = np.array([s for s in shifts if s], dtype=np.float64)
    across, examples = None, []
    theirs = None if train is None else _column_hashes(train)
    if train is not None and theirs is not None:
        found = _shared_stretches(hashes, theirs)
        across = len({i for i, _, _ in found})
        ours, index = data.samples.index, train.samples.index
        examples = [(int(ours[i]), int(index[j]), length) for i, j, length in found[:_LISTED]]
    return Overlap(
        neighbours=len(before),
        overlapping=len(moved),
        shift=float(np.median(moved)) if len(moved) else float("nan"),
        length=hashes.shape[1],
        across=across,
        examples=tuple(examples),
    )


def _column_hashes(split: Split) -> Hashes | None:
    """One number per sample and bin of the axis, from the bits of all channels: (n, T)."""
    if len(split.rest) != 1 or split.rest[0][0] not in ("time", "token"):
        return None
    bits: npt.NDArray[Any] = (
        np.empty((0, 1, 0)) if split.x is None else (split.x + np.float32(0)).view(np.uint32)
    )
    if split.ids is not None:
        bits = split.ids[:, None]
    odd: Any = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.zeros((bits.shape[0], bits.shape[2]), dtype=np.uint64)
    for channel in range(bits.shape[1]):
        mixed = bits[:, channel].astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
        hashes += (mixed ^ (mixed >> np.uint64(29))) * odd[channel : channel + 1]
    return hashes


def _shared(head: Hashes, tail: Hashes) -> int:
    """Length of a stretch that two windows share: ``tail`` is the end of one, ``head`` the other; 0 if none.

    A stretch that never changes (padding, silence) tells nothing.
    """
    shared = len(tail)
    least = max(_LEAST_SHARED, len(head) // 20)
    if shared < least or not np.array_equal(tail, head[:shared]):
        return 0
    return shared if len(np.unique(tail)) >= _LEAST_SHARED else 0


def _shift(first: Hashes, second: Hashes) -> int:
    """How many bins later the second window begins, if it overlaps the first; else 0."""
    same: npt.NDArray[np.bool_] = np.equal(first, second[:1])
    for shift in np.flatnonzero(same).tolist():
        if shift and _shared(second, first[shift:]):
            return int(shift)
    return 0


def _shared_stretches(ours: Hashes, theirs: Hashes) -> list[tuple[int, int, int]]:
    """Samples of one split whose head or tail lies in a window of the other: (ours, theirs, bins).

    Whole copies are not counted: they are duplicates.
    """
    found: dict[int, tuple[int, int, int]] = {}
    for i, j, length in _heads_in(ours, theirs) + [(i, j, n) for j, i, n in _heads_in(theirs, ours)]:
        found.setdefault(i, (i, j, length))
    return list(found.values())


def _heads_in(heads: Hashes, windows: Hashes) -> list[tuple[int, int, int]]:
    """Heads of windows among the tails of others: (head, window, bins), one per head and per window."""
    at: dict[int, list[int]] = {}
    for place, value in enumerate(heads[:, 0].tolist()):
        at.setdefault(value, []).append(place)
    hits = np.argwhere(np.isin(windows, heads[:, 0]))
    found = []
    for window, shift in hits[:200_000].tolist():
        for head in at[int(windows[window, shift])][:8] if shift else ():
            length = _shared(heads[head], windows[window, shift:])
            if length:
                found.append((head, window, length))
    return found


# ---------------------------------------------------------------------- groups


def group_overlaps(data: Split, train: Split | None, given: str | None) -> tuple[GroupOverlap, ...]:
    """Groups that are in both splits, for each column that names groups in both."""
    found = []
    for column, ours in data.columns.items():
        theirs = set(train.columns.get(column, ())) if train is not None else set()
        shared = sorted(set(ours) & theirs)
        if shared:
            share = float(np.mean([g in theirs for g in ours]))
            found.append(GroupOverlap(column, column == given, tuple(shared[:_NAMED]), len(shared), share))
    return tuple(found)
