"""A short hash of tensors: equal for equal values, cheap, the same on every machine.

The bits of the values are added up as whole numbers, so that neither the order of additions nor NaN matters:
64 sums over every 64th word, 64 words picked all over the tensor (they tell batches apart that hold the same
samples in another order), and the rest that does not fill a row of 64. The hash is made of them in the
recorder. Tensors of more than :data:`MOST` elements are summed up to there; the picked words come from
everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from torchwatch.probe import Values

MOST = 1 << 20
"""Elements that are summed, at most."""

_WIDTH = 64
_MIX = 2654435761  # Knuth's multiplicative hash: 2**32 over the golden ratio
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
_READABLE = frozenset(
    {
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    }
)  # fmt: skip


class Sketcher:
    """Takes the sums of tensors; remembers which words it picks from tensors of which size."""

    def __init__(self) -> None:
        self._picks: dict[tuple[int, torch.device], torch.Tensor] = {}

    def sketch(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Whole numbers that tell the tensor from others, at most 255, on its device."""
        tensor = tensor.detach()
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor)
        words = _words(tensor)
        rows = words.numel() // _WIDTH
        if rows < 2:
            return [words.clone()]
        whole = words[: rows * _WIDTH]
        parts = [whole.view(rows, _WIDTH).sum(0, dtype=torch.int32)]
        if whole.numel() < words.numel():
            parts.append(words[rows * _WIDTH :].clone())
        picked = tensor.take(self._pick(tensor.numel(), tensor.device))
        parts.append(picked.view(_WORDS[tensor.element_size()]))
        return parts

    def _pick(self, numel: int, device: torch.device) -> torch.Tensor:
        """Indices of the words that are read; made on the device, since a copy there would wait."""
        found = self._picks.get((numel, device))
        if found is None:
            if len(self._picks) >= _WIDTH:
                self._picks.clear()
            found = (torch.arange(_WIDTH, device=device) * _MIX & 0xFFFFFFFF) % numel
            self._picks[numel, device] = found
        return found


def sketchable(tensor: torch.Tensor) -> bool:
    """Whether the tensor's values can be read here and now: plain, local, dense, of a common type."""
    return (
        tensor.layout is torch.strided
        and tensor.dtype in _READABLE
        and not (tensor.is_meta or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
        and not hasattr(tensor, "to_local")
    )


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """The first elements as whole numbers of one dimension, in the logical order of the tensor."""
    if tensor.numel() > MOST:
        if not tensor.is_contiguous() and tensor.dim() > 1:
            tensor = tensor[: -(-MOST * tensor.shape[0] // tensor.numel())]
        tensor = tensor.reshape(-1)[:MOST]
    flat = tensor.reshape(-1)
    if flat.stride(0) != 1:  # one element may have any stride, and is contiguous all the same
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(_WORDS[flat.element_size()])


def digest(tensors: Sequence[tuple[Sequence[int], str, Sequence[Values]]]) -> str:
    """The hash of several tensors in order: of each its shape, its type, and its sketch. 8 hex digits."""
    state = hashlib.blake2b(digest_size=4)
    for shape, dtype, parts in tensors:
        state.update(f"{list(shape)} {dtype};".encode())
        for part in parts:
            state.update(np.asarray(part, np.float64).astype("<i8").tobytes())
    return state.hexdigest()


def combined(digests: Sequence[str]) -> str:
    """One hash of several in order; one that repeats the one before counts once."""
    different = [d for i, d in enumerate(digests) if not i or d != digests[i - 1]]
    if len(different) == 1:
        return different[0]
    return hashlib.blake2b(" ".join(different).encode(), digest_size=4).hexdigest()
