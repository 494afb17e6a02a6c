"""Tensors inside what layers take and give: a bounded walk, and which of them can be read."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

_MOST_TENSORS = 16


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first readable tensor in a value."""
    if type(value) is torch.Tensor:
        return value if readable_output(value) else None
    return next(tensors(value), None)


def tensors(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Readable tensors in a value, first ones first: bounded, and generators are never iterated."""
    yield from itertools.islice(_walk(value, depth), _MOST_TENSORS)


def _walk(value: Any, depth: int) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if readable_output(value):
            yield value
        return
    if depth == 0:
        return
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = (getattr(value, f.name) for f in dataclasses.fields(value))
    for item in inner:
        yield from _walk(item, depth - 1)


def readable_output(tensor: torch.Tensor) -> bool:
    """Whether statistics of the tensor can be taken: real floating point, plain, local, not empty."""
    return (
        tensor.layout is torch.strided
        and tensor.is_floating_point()
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
        and not hasattr(tensor, "to_local")
        and tensor.numel() > 0
        and not (tensor.requires_grad and tensor.is_leaf)
    )


def batch_size(args: Any) -> int | None:
    """Samples in a call of the model: the first axis of its first tensor, of any type."""
    stack = [args]
    for _ in range(_MOST_TENSORS):
        if not stack:
            return None
        value = stack.pop(0)
        if isinstance(value, torch.Tensor):
            if value.dim() > 0:
                return int(value.shape[0])
        elif isinstance(value, Mapping):
            stack[:0] = list(value.values())
        elif isinstance(value, (list, tuple)):
            stack[:0] = list(value)
    return None
