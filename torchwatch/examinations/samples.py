"""The samples that are examined: an exact, seeded number of them, taken from whatever the user has.

A loader over a data set with a length is not iterated: the chosen indices are fetched. Anything else is read
up to a limit and sampled on the way (Vitter 1985, algorithm R).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from torchwatch.errors import UsageError
from torchwatch.examinations._rows import Row, of_one_shape
from torchwatch.results import Remark

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
_SCANNED = 20
"""Of data without a length, this many times as many samples are read as are examined."""
_LEAST_SCANNED = 2_000
_BATCH = 64

Enough = Callable[[int], bool]
"""Called with the number of samples read so far: whether reading is to end with them."""


@dataclass(frozen=True)
class Samples:
    """Samples on the CPU, one along the first axis of each tensor.

    Attributes:
        inputs: by name: ``input`` where there is one tensor, ``input0``, ``input1`` … for a tuple, the keys
            of a dict.
        form: how the model takes them: ``one``, ``tuple`` or ``dict``.
        constants: what a dict batch holds besides tensors with a batch axis.
        targets: None where the data hold none; a dict of tensors where they are one.
        metadata: columns by name, as long as the samples.
        index: place of each sample in the data (N,).
        available: how many samples the data hold; None where they have no end or were not read to it.
        remarks: what was noticed on the way.
    """

    inputs: dict[str, Tensor]
    form: str
    targets: Tensor | None
    index: np.ndarray[Any, np.dtype[np.int64]]
    constants: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, list[Any]] = field(default_factory=dict)
    available: int | None = None
    remarks: tuple[Remark, ...] = ()

    def __len__(self) -> int:
        return int(self.index.size)


def take(data: Iterable[Any], count: int, seed: int, enough: Enough = lambda _: False) -> Samples:
    """Exactly ``count`` samples of the data, or all where there are fewer.

    Args:
        data: as :class:`~torchwatch.results.AutopsyInputs` takes it.
        count: how many.
        seed: of the choice.
        enough: called with the number of samples read so far; what it ends is sampled from those.

    Raises:
        UsageError: there are none, or the batches have a form that is not understood.
    """
    rng = np.random.default_rng(seed)
    rows, available, form = _rows(data, count, rng, enough)
    if not rows:
        raise UsageError("the data hold no samples: pass a loader that yields at least one batch")
    rows.sort(key=lambda row: row.index)
    kept, remarks = of_one_shape(rows)
    return _stacked(kept, form, available, remarks)


def _rows(
    data: Iterable[Any], count: int, rng: np.random.Generator, enough: Enough
) -> tuple[list[Row], int | None, str]:
    found = indexed(data)
    if found is not None:
        dataset, collate = found
        size = len(dataset)  # type: ignore[arg-type]
        picked = np.sort(rng.permutation(size)[:count])
        loader = DataLoader(Subset(dataset, picked.tolist()), batch_size=_BATCH, collate_fn=collate)
        rows: list[Row] = []
        form = ""
        for batch in loader:
            form, read = _split(batch)
            rows += [_numbered(row, int(picked[len(rows) + i])) for i, row in enumerate(read)]
            if enough(len(rows)):
                break
        return rows, size, form
    return _scanned(data, count, rng, enough)


def indexed(data: Any) -> tuple[Dataset[Any], Any] | None:
    """The data set and how its samples become a batch, where samples can be fetched by their index."""
    dataset, collate = data, None
    if isinstance(data, DataLoader):
        if data.batch_size is None or type(data).__iter__ is not DataLoader.__iter__:
            return None  # batches are made by the data set, or by a class of the user's
        dataset, collate = data.dataset, data.collate_fn
    if (
        not isinstance(dataset, Dataset)
        or isinstance(dataset, IterableDataset)
        or not hasattr(dataset, "__len__")
    ):
        return None
    return dataset, collate


def _scanned(
    data: Iterable[Any], count: int, rng: np.random.Generator, enough: Enough
) -> tuple[list[Row], int | None, str]:
    """Algorithm R over the rows of the batches, up to a limit that ends endless loaders too."""
    limit = max(_LEAST_SCANNED, _SCANNED * count)
    reservoir: list[Row] = []
    seen, form, empty = 0, "", 0
    for batch in _batches(data):
        form, rows = _split(batch)
        empty = 0 if rows else empty + 1
        if empty >= _LEAST_SCANNED:
            break  # it gives batches without end, and nothing in them
        for row in rows:
            place = seen if seen < count else int(rng.integers(seen + 1))
            if place < count:
                reservoir[place : place + 1] = [_numbered(row, seen)]
            seen += 1
        if seen >= limit or enough(seen):
            return reservoir, None, form
    return reservoir, seen, form


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, tuple) and data and all(isinstance(x, (Tensor, np.ndarray, Mapping)) for x in data):
        yield data  # one batch, given as it is
        return
    if isinstance(data, (Tensor, np.ndarray, str, bytes, Mapping)) or not isinstance(data, Iterable):
        raise UsageError(
            f"data must be a loader, a Dataset or a tuple (inputs, targets), not {type(data).__name__}"
        )
    yield from data


def _numbered(row: Row, index: int) -> Row:
    """The row as a copy of its own, so that the batch it came from can go."""
    return Row(
        index,
        {k: v.detach().cpu().clone() for k, v in row.inputs.items()},
        None if row.target is None else row.target.detach().cpu().clone(),
        row.metadata,
        row.constants,
    )


def _split(batch: Any) -> tuple[str, list[Row]]:
    """A batch in rows, and how its inputs were given."""
    if isinstance(batch, Mapping) or (hasattr(batch, "keys") and hasattr(batch, "__getitem__")):
        return _split_dict({k: batch[k] for k in batch.keys()})  # noqa: SIM118 - a BatchEncoding iterates otherwise
    if isinstance(batch, (Tensor, np.ndarray)):
        batch = (batch,)
    if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 3:
        raise UsageError(
            "a batch must be (inputs, targets), (inputs, targets, metadata) or a dict, not "
            f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, (tuple, list)) else ''}"
        )
    form, inputs, constants = _inputs_of(batch[0])
    target = _target_of(batch[1]) if len(batch) > 1 and batch[1] is not None else None
    return form, _as_rows(inputs, target, _metadata_of(batch[2]) if len(batch) > 2 else {}, constants)


def _target_of(value: Any) -> Tensor:
    target = _tensor(value)
    if target is not None:
        return target
    keys = f" of {', '.join(map(str, value))}" if isinstance(value, Mapping) else ""
    raise UsageError(
        f"the targets of a batch must be one tensor, not {type(value).__name__}{keys}: yield those that "
        "are to be examined"
    )


def _inputs_of(value: Any) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    if isinstance(value, Mapping):
        found = {str(k): _tensor(v) for k, v in value.items()}
        tensors = {k: v for k, v in found.items() if v is not None and v.ndim}
        return "dict", tensors, {k: v for k, v in value.items() if str(k) not in tensors}
    if isinstance(value, (tuple, list)):
        parts = [_tensor(v) for v in value]
        if any(p is None for p in parts):
            raise UsageError("the inputs of a batch must be tensors, or tuples or dicts of tensors")
        return "tuple", {f"input{i}": p for i, p in enumerate(parts) if p is not None}, {}
    tensor = _tensor(value)
    if tensor is None:
        raise UsageError(f"the inputs of a batch must be tensors, not {type(value).__name__}")
    return "one", {"input": tensor}, {}


def _split_dict(batch: dict[Any, Any]) -> tuple[str, list[Row]]:
    """A dict batch: targets under one of their usual names, lists of other things are metadata."""
    key = next((k for k in TARGET_KEYS if k in batch), None)
    target = _tensor(batch[key]) if key is not None else None
    rest = {k: v for k, v in batch.items() if k != key}
    form, inputs, constants = _inputs_of(rest)
    if not inputs:
        raise UsageError(f"a dict batch must hold input tensors; it has {', '.join(map(str, batch))}")
    count = next(iter(inputs.values())).shape[0]
    columns = {str(k): v for k, v in constants.items() if isinstance(v, (list, tuple)) and len(v) == count}
    constants = {k: v for k, v in constants.items() if str(k) not in columns}
    if list(inputs) in (["x"], ["input"], ["inputs"], ["image"], ["images"], ["features"], ["data"]):
        form = "one"  # a name that says nothing: the model takes the tensor itself
    return form, _as_rows(inputs, target, columns, constants)


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        return torch.tensor(value)
    return None


def _metadata_of(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        return {str(k): [v.get(k) for v in value] for k in value[0]}
    return {"metadata": value}


def _as_rows(
    inputs: dict[str, Tensor], target: Tensor | None, metadata: dict[str, Any], constants: dict[str, Any]
) -> list[Row]:
    counts = {k: v.shape[0] if v.ndim else None for k, v in inputs.items()}
    count = next(iter(counts.values()))
    if count is None or any(c != count for c in counts.values()):
        raise UsageError(f"the inputs of a batch must share their first axis; they have {counts}")
    if target is not None and (not target.ndim or target.shape[0] != count):
        raise UsageError(
            f"a batch has {count} inputs but targets of shape {tuple(target.shape)}: give one target for "
            "each input, and single samples through a DataLoader"
        )
    columns = {k: _column(v, count) for k, v in metadata.items()}
    return [
        Row(
            0,
            {k: v[i] for k, v in inputs.items()},
            None if target is None else target[i],
            {k: v[i] for k, v in columns.items()},
            constants,
        )
        for i in range(count)
    ]


def _column(value: Any, count: int) -> list[Any]:
    if isinstance(value, (Tensor, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == count:
        return list(value)
    return [value] * count


def _stacked(rows: list[Row], form: str, available: int | None, remarks: tuple[Remark, ...]) -> Samples:
    first = rows[0]
    targets = None if first.target is None else torch.stack([r.target for r in rows if r.target is not None])
    return Samples(
        inputs={k: torch.stack([r.inputs[k] for r in rows]) for k in first.inputs},
        form=form,
        targets=targets,
        index=np.array([r.index for r in rows], dtype=np.int64),
        constants=first.constants,
        metadata={k: [r.metadata.get(k) for r in rows] for k in first.metadata},
        available=available,
        remarks=remarks,
    )
