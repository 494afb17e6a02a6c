"""Work in chunks that halve when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

_SAYS_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on whichever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SAYS_OUT_OF_MEMORY)


def in_chunks(work: Callable[[int, int], T], count: int, size: int) -> Iterator[tuple[int, int, T]]:
    """Call ``work(start, end)`` over 0 … ``count`` in chunks of at most ``size``.

    A chunk that runs out of memory is tried again at half its size, and the rest is done at that.

    Args:
        work: called with a half-open range.
        count: how many there are.
        size: largest chunk, at least 1.

    Yields:
        Start, end and what ``work`` gave.

    Raises:
        Exception: what ``work`` raised, out of memory only where a single one does not fit.
    """
    start, size = 0, max(1, size)
    while start < count:
        end = min(count, start + size)
        try:
            done = work(start, end)
        except Exception as error:
            if not out_of_memory(error) or end - start == 1:
                raise
            size = (end - start) // 2
            _give_back()
            continue
        yield start, end, done
        start = end


def _give_back() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
