"""Samples for the examination of data quality: neighbours in the order of the data, as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from torchwatch.errors import UsageError
from torchwatch.examinations import tasks
from torchwatch.examinations.case import Case, Options
from torchwatch.examinations.samples import Samples, indexed, take
from torchwatch.results.data_quality import SplitAbout

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

STRETCH = 100
"""Where not all samples are looked at, this many that follow each other are taken at a time."""
_USUALLY = 10_000
"""Samples of a split that are looked at where no other number than the default is asked for: copies are
found in whole sets."""
_MOST_BYTES = 256 * 2**20
"""Of the main inputs of one split."""


@dataclass(frozen=True)
class Split:
    """One split, in the form that all parts of the examination use.

    Attributes:
        name: ``data`` or ``train``.
        samples: as they were read, in the order of the data.
        main: name of the main input.
        x: main input (n, C, R): channels, and all other places flattened; None for integers.
        ids: main input of integers (n, R); None otherwise.
        channels: names along C.
        rest: name and length of each axis that R was made of.
        y: targets: of numbers and labels float64 (n, K); classes int64 (n,); tokens int64 (n, T).
        kind: ``numbers``, ``classes``, ``labels`` or ``tokens``.
        columns: groups of each sample by column.
    """

    name: str
    samples: Samples
    main: str
    x: npt.NDArray[np.float32] | None
    ids: Integers | None
    channels: tuple[str, ...]
    rest: tuple[tuple[str, int], ...]
    y: Any
    kind: str
    columns: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def whole(self) -> bool:
        """Whether all samples that there are were looked at."""
        return _all_of(self.samples)

    def pairs(self, lag: int = 1) -> tuple[Integers, Integers]:
        """Places of samples i and of those that come ``lag`` later in the data."""
        index = self.samples.index
        places = np.searchsorted(index, index + lag)
        found = places < len(index)
        found[found] = index[places[found]] == (index + lag)[found]
        return np.flatnonzero(found), places[found]

    def place(self, flat: int) -> str:
        """An index into R in words."""
        if not self.rest:
            return ""
        at = np.unravel_index(flat, [n for _, n in self.rest])
        return ", ".join(f"{name} {int(i)}" for (name, _), i in zip(self.rest, at, strict=True))


def read(case: Case) -> tuple[Split, Split | None, list[str]]:
    """The data, the training data where they can be compared with them, and why not where they cannot."""
    data = _split(case, "data", _neighbours(case, case.inputs.data, case.samples))
    if case.inputs.train_data is None:
        return data, None, ["Splits were not compared: there are no `train_data`."]
    try:
        taken = _neighbours(case, case.inputs.train_data, None)
    except UsageError as error:
        return data, None, [f"Splits were not compared: `train_data` cannot be read ({error})."]
    ours, theirs = _form(case.samples), _form(taken)
    if ours != theirs:
        note = f"Splits were not compared: samples of `train_data` have the form {theirs}, not {ours}."
        return data, None, [note]
    return data, _split(case, "train", taken), []


def _form(samples: Samples) -> dict[str, tuple[int, ...]]:
    targets = {} if samples.targets is None else {"targets": samples.targets}
    return {k: tuple(v.shape[1:]) for k, v in {**samples.inputs, **targets}.items()}


def _neighbours(case: Case, data: Iterable[Any], known: Samples | None) -> Samples:
    """As many samples as are asked for, neighbours where it is not all of them.

    What can be read only once was read already; then the samples of the case have to do.
    """
    count = _affordable(case)
    if known is not None and (isinstance(data, Iterator) or (len(known) <= count and _all_of(known))):
        return known
    found = indexed(data)
    if found is None:
        head = _Head(data, count)
        samples = take(head, count, case.options.seed)
        return samples if head.ended else replace(samples, available=None)
    dataset, collate = found
    size = len(dataset)  # type: ignore[arg-type]
    picked = stretches(size, count, case.rng("data_quality"))
    loader: DataLoader[Any] = DataLoader(Subset(dataset, picked.tolist()), batch_size=64, collate_fn=collate)
    samples = take(loader, len(picked), case.options.seed)
    return replace(samples, index=picked[samples.index], available=size)


def _all_of(samples: Samples) -> bool:
    return samples.available == len(samples)


def _affordable(case: Case) -> int:
    main = case.samples.inputs[case.main]
    usual = case.options.samples == Options.samples
    wanted = _USUALLY if usual else case.options.samples
    return max(8, min(wanted, _MOST_BYTES // max(1, main[0].numel() * 4)))


def stretches(size: int, count: int, rng: np.random.Generator) -> Integers:
    """Sorted indices of ``min(size, count)`` samples in stretches of :data:`STRETCH` neighbours."""
    if count >= size:
        return np.arange(size)
    blocks = rng.permutation(-(-size // STRETCH))
    picked = (blocks[:, None] * STRETCH + np.arange(STRETCH)).ravel()
    return np.sort(picked[picked < size][:count])


class _Head:
    """The first ``count`` samples of an iterable, in its batches; ``ended``: there were no more."""

    def __init__(self, data: Iterable[Any], count: int) -> None:
        self._data, self._count, self.ended = data, count, False

    def __iter__(self) -> Iterator[Any]:
        one_batch = isinstance(self._data, tuple) and not isinstance(self._data[0], (tuple, list))
        left = self._count
        for batch in [self._data] if one_batch else self._data:
            rows = _rows(batch)
            yield batch if rows <= left else _first(batch, left)
            left -= rows
            if left <= 0:
                self.ended = left == 0 and one_batch
                return
        self.ended = True


def _first(batch: Any, count: int) -> Any:
    """The first samples of a batch."""
    if isinstance(batch, (Tensor, np.ndarray)):
        return batch[:count] if batch.ndim else batch
    if isinstance(batch, Mapping):
        return {k: _first(v, count) for k, v in batch.items()}
    if isinstance(batch, (tuple, list)):
        nested = any(isinstance(v, (Tensor, np.ndarray, Mapping, tuple, list)) for v in batch)
        return tuple(_first(v, count) for v in batch) if nested else batch[:count]
    return batch


def _rows(batch: Any) -> int:
    """Samples in a batch: the length of the first thing in it that has one."""
    while True:
        if isinstance(batch, (Tensor, np.ndarray)):
            return int(batch.shape[0]) if batch.ndim else 1
        if hasattr(batch, "values"):
            batch = list(batch.values())
        if not isinstance(batch, (tuple, list)) or not batch:
            return 1
        batch = batch[0]


def _split(case: Case, name: str, samples: Samples) -> Split:
    main = samples.inputs[case.main]
    axis = next((i for i, a in enumerate(case.axes) if a in ("channel", "feature")), None)
    rest = tuple((a, int(main.shape[i + 1])) for i, a in enumerate(case.axes) if i != axis)
    x, ids = None, None
    names: tuple[str, ...] = ("",)
    if main.is_floating_point():
        moved = main[:, None] if axis is None else main.movedim(axis + 1, 1)
        x = moved.reshape(len(samples), moved.shape[1], -1).float().numpy()
        names = tuple(case.names_along(case.axes[axis], x.shape[1])) if axis is not None else ("",)
    else:
        ids = main.reshape(len(samples), -1).long().numpy()
    y, kind = _targets(case, samples)
    return Split(name, samples, case.main, x, ids, names, rest, y, kind, _columns(case, name, samples))


_KINDS = {"regression": "numbers", "binary": "classes", "multiclass": "classes", "multilabel": "labels"}


def _targets(case: Case, samples: Samples) -> tuple[Any, str]:
    kind = _KINDS.get(case.task.name, "tokens")
    if samples.targets is None:
        return None, kind
    targets = tasks.canonical_targets(samples.targets, case.task)
    if case.task.name == "binary":
        if targets.shape[1] > 1:
            kind = "labels"
        elif bool(((targets == 0) | (targets == 1)).all()):
            return targets[:, 0].long().numpy(), kind
        else:
            kind = "numbers"  # soft labels
    if kind in ("numbers", "labels"):
        return targets.double().numpy(), kind
    return targets.long().numpy(), kind


_TELLING = (
    "subject",
    "patient",
    "participant",
    "speaker",
    "user",
    "person",
    "animal",
    "recording",
    "session",
)


def _columns(case: Case, name: str, samples: Samples) -> dict[str, list[str]]:
    """Columns that name groups: the one that was given first, then those with a telling name."""
    given = case.inputs.groups
    found: dict[str, list[str]] = {}
    if isinstance(given, str):
        if given in samples.metadata:
            found[given] = [str(v) for v in samples.metadata[given]]
    elif given is not None and name == "data":
        found["group"] = [str(given[int(i)]) for i in samples.index]
    for column, values in samples.metadata.items():
        words = str(column).lower().replace("-", "_").split("_")
        if column not in found and any(w.removesuffix("s") in _TELLING for w in words):
            found[str(column)] = [str(v) for v in values]
    return found


def about(split: Split) -> SplitAbout:
    """What was looked at."""
    samples = split.samples
    tensors = [t for t in samples.inputs.values() if t.is_floating_point()]
    targets = samples.targets
    return SplitAbout(
        split.name,
        len(split),
        samples.available,
        len(split.pairs()[0]),
        sum(int((~torch.isfinite(t)).sum()) for t in tensors),
        0 if targets is None or not targets.is_floating_point() else int((~torch.isfinite(targets)).sum()),
    )
