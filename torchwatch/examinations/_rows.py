"""One sample as a row, and rows of one shape: padded where a mask hides the padding, else the commonest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from torchwatch.examinations.tasks import IGNORED
from torchwatch.results import Remark

_MASK = "attention_mask"


@dataclass(frozen=True, slots=True)
class Row:
    """One sample: its place in the data, named inputs, target, metadata, and what its batch held besides."""

    index: int
    inputs: dict[str, Tensor]
    target: Tensor | None
    metadata: dict[str, Any]
    constants: dict[str, Any]


def of_one_shape(rows: list[Row]) -> tuple[list[Row], tuple[Remark, ...]]:
    """Rows that can be stacked, and what was done for it.

    Sequences of tokens that come with an attention mask are padded to the longest: loaders of language models
    pad each batch to a length of its own. Of other samples those of the commonest shape are kept.
    """
    if len({_shape(row) for row in rows}) == 1:
        return rows, ()
    padded, remarks = _padded(rows)
    commonest, count = Counter(map(_shape, padded)).most_common(1)[0]
    if count == len(rows):
        return padded, remarks
    text = (
        f"{len(rows) - count} of {len(rows)} chosen samples have another shape than {dict(commonest[0])} and "
        "were left out."
    )
    fix = "Pad all samples to one length in the loader that the autopsy gets."
    return [r for r in padded if _shape(r) == commonest], (*remarks, Remark("warning", text, fix))


def _shape(row: Row) -> Any:
    target = None if row.target is None else tuple(row.target.shape)
    return tuple((k, tuple(v.shape)) for k, v in row.inputs.items()), target


def _padded(rows: list[Row]) -> tuple[list[Row], tuple[Remark, ...]]:
    """Sequences of whole numbers as long as the longest of their name; what targets gain does not count."""
    if any(_MASK not in row.inputs for row in rows):
        return rows, ()
    lengths = {name: _longest(row.inputs[name] for row in rows) for name in rows[0].inputs}
    target = _longest(row.target for row in rows)
    padding = {name: _padding(rows, name) for name in lengths}
    done = [
        replace(
            row,
            inputs={k: _to(v, lengths[k], padding[k]) for k, v in row.inputs.items()},
            target=None if row.target is None else _to(row.target, target, IGNORED),
        )
        for row in rows
    ]
    if lengths[_MASK] is None:
        return rows, ()
    text = f"Samples of different lengths were padded to {lengths[_MASK]} tokens, which attention_mask hides."
    return done, (Remark("info", text),)


def _longest(tensors: Iterable[Tensor | None]) -> int | None:
    """Longest of sequences of whole numbers; None where they are anything else."""
    length = 0
    for tensor in tensors:
        if tensor is None or tensor.ndim != 1 or tensor.is_floating_point():
            return None
        length = max(length, len(tensor))
    return length


def _to(tensor: Tensor, length: int | None, value: int) -> Tensor:
    return tensor if length is None else functional.pad(tensor, (0, length - len(tensor)), value=value)


def _padding(rows: list[Row], name: str) -> int:
    """What the data themselves have where the mask is 0, else 0: the model knows it, and never sees it."""
    for row in rows:
        mask, tensor = row.inputs[_MASK], row.inputs[name]
        if "mask" not in name and tensor.shape == mask.shape and bool((mask == 0).any()):
            return int(tensor[mask == 0][0])
    return 0
