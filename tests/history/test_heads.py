"""Attention records: the first entropy of each head and the last ones, bounded, whatever the file holds."""

import numpy as np

from torchwatch.history import History
from torchwatch.history.heads import OBSERVATIONS
from torchwatch.records import Attention


def history_of(*entropies, name="blocks.0.attn"):
    history = History()
    for step, entropy in enumerate(entropies, 1):
        history.add(Attention(step, 0.0, {"layers": [{"name": name, "entropy": entropy}]}))
    return history


def test_the_first_and_the_last_values_are_kept():
    history = history_of(*([1.0, None if i == 0 else 0.5 - i / 100] for i in range(50)))
    heads = history.attention()["blocks.0.attn"]
    assert history.seen("attention")
    assert heads.first.tolist() == [1.0, np.float32(0.49)]
    assert heads.first_step == 1
    last = heads.last()
    assert last.steps.tolist() == list(range(51 - OBSERVATIONS, 51))
    assert last.values[-1].tolist() == [1.0, np.float32(0.01)]
    assert heads.last(1).values.shape == (1, 2)


def test_another_number_of_heads_starts_anew():
    heads = history_of([1.0, 1.0], [0.5], [0.4]).attention()["blocks.0.attn"]
    assert heads.count == 1
    assert heads.first.tolist() == [0.5]


def test_what_is_no_entropy_is_left_out():
    history = history_of(["a", True], "text", 3, [], [0.1] * 300)
    assert history.attention()["blocks.0.attn"].first[1] == 1.0
    assert len(history.attention()["blocks.0.attn"].last().steps) == 1
    history.add(Attention(9, 0.0, {"layers": [7, {"entropy": None}]}))
    history.add(Attention(9, 0.0, {}))
    assert list(history.attention()) == ["blocks.0.attn"]


def test_names_are_bounded():
    history = History()
    for i in range(600):
        history.add(Attention(i, 0.0, {"layers": [{"name": f"a{i}", "entropy": [0.5]}]}))
    assert len(history.attention()) == 512
