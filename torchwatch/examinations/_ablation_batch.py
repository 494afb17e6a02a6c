"""The batch size at which a model is fastest here: a short timed trial."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from torchwatch.examinations.chunks import out_of_memory

_SMALLEST = 32
_CLEARLY_SLOWER = 1.25
_GOOD_ENOUGH = 1.05
_SHORT_S = 0.01
"""A trial shorter than this is done twice more: the clock and the machine disturb it."""


def best_batch(
    run: Callable[[int], None],
    most: int,
    device: torch.device,
    clock: Callable[[], float] | None = None,
) -> int:
    """Try 32, 64, 128 … rows, up to ``most``, until it gets clearly slower or memory runs out.

    Args:
        run: a forward pass of so many rows.
        most: the largest batch that is wanted.
        device: whose work has to be waited for.
        clock: seconds (default: :func:`clock_for` the device).

    Returns:
        The smallest batch whose time per row is within 5 % of the best; at least 1.

    Raises:
        Exception: what ``run`` raised, out of memory only at a single row.
    """
    clock = clock or clock_for(device)
    sizes = [s for s in (_SMALLEST << i for i in range(16)) if s < most] + [max(1, most)]
    per_row: dict[int, float] = {}
    for size in sizes:
        try:
            if size == sizes[0]:
                _timed(run, size, device, clock)  # the first pass also loads kernels
            taken = _timed(run, size, device, clock)
            if taken < _SHORT_S:
                taken = min(taken, *(_timed(run, size, device, clock) for _ in range(2)))
        except Exception as error:
            if not out_of_memory(error) or size == 1:
                raise
            if size == sizes[0]:
                return best_batch(run, size // 2, device, clock)
            break
        per_row[size] = taken / size
        if per_row[size] > _CLEARLY_SLOWER * min(per_row.values()):
            break
    best = min(per_row.values())
    return next(s for s, t in per_row.items() if t <= _GOOD_ENOUGH * best)


def clock_for(device: torch.device) -> Callable[[], float]:
    """CPU time of the process where that does the work, which other programs disturb less; else wall time."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def _timed(run: Callable[[int], None], rows: int, device: torch.device, clock: Callable[[], float]) -> float:
    started = clock()
    run(rows)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - started
