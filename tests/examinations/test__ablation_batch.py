"""The best batch: told from times per row on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from torchwatch.examinations._ablation_batch import best_batch

CPU = torch.device("cpu")


def trial(cost: Callable[[int], float], most: int, room: int = 10**9) -> tuple[int, list[int]]:
    """The batch chosen where a pass of n rows takes ``cost(n)`` seconds, and the passes it took."""
    now, passes = 0.0, []

    def run(rows: int) -> None:
        nonlocal now
        passes.append(rows)
        if rows > room:
            raise torch.OutOfMemoryError("out of memory")
        now += cost(rows)

    return best_batch(run, most, CPU, lambda: now), passes


def test_where_a_pass_costs_by_itself_the_largest_is_best():
    assert trial(lambda n: 1 + 0.0001 * n, 4000)[0] == 4000


def test_where_caches_are_small_the_smallest_is_best():
    best, passes = trial(lambda n: n * (1 if n <= 64 else 2), 1024)
    assert best == 32
    assert max(passes) == 128  # clearly slower: no larger one is tried


def test_the_minimum_in_between():
    assert trial(lambda n: 20 + n * (0.1 if n <= 256 else 0.2), 1024)[0] == 256


def test_sizes_that_do_not_fit_are_left():
    assert trial(lambda n: 1 + 0.0001 * n, 4096, room=300)[0] == 256
    assert trial(lambda n: 1 + 0.0001 * n, 4096, room=9)[0] == 8
    with pytest.raises(torch.OutOfMemoryError):
        trial(lambda n: 1.0, 4096, room=0)


def test_few_rows_are_one_batch():
    assert trial(lambda n: 1.0, 5) == (5, [5, 5])


def test_short_trials_are_done_again():
    assert trial(lambda n: 1e-4, 5)[1] == [5] * 4


def test_other_errors_are_passed_on():
    def run(rows: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        best_batch(run, 100, CPU)
