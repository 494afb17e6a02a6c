"""Thorough steps are rare sampled steps, far enough apart, and one answer serves all optimizers of a step."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from torchwatch.config import WatchConfig
from torchwatch.probe import Frame
from torchwatch.probes._thorough import APART, Thorough
from torchwatch.schedule import Plan, Schedule


def frame(number: int, *, rare: bool = True) -> Frame:
    return Frame(Plan(number, gradients=True, sampled=True, rare=rare, sentinel=False))


@pytest.mark.parametrize(
    ("every", "rare_every", "expected"),
    [(1, 1, APART), (1, 10, APART), (10, 1, APART), (20, 1, 60), (10, 10, 100), (7, 2, 56), (100, 1, 100)],
)
def test_steps_of_a_real_schedule(every: int, rare_every: int, expected: int) -> None:
    schedule = Schedule(WatchConfig(activations_every=every, rare_every=rare_every, dense_steps=0))
    thorough = Thorough()
    found = [n for n in range(1, 1001) if thorough.due(Frame(schedule.plan(n)))]
    assert found[0] == every
    assert {b - a for a, b in pairwise(found)} == {expected}


@given(steps=st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.integers(1, 3)), max_size=60))
def test_whatever_is_sampled(steps: list[tuple[int, bool, int]]) -> None:
    """As many as fit: the first rare step that is far enough from the one before."""
    thorough, number, last = Thorough(), 0, -APART
    for ahead, rare, optimizers in steps:
        number += ahead
        due = rare and number >= last + APART
        answers = [thorough.due(frame(number, rare=rare)) for _ in range(optimizers)]
        assert answers == [due] * optimizers
        last = number if due else last


def test_the_first_sampled_step_is_one() -> None:
    assert Thorough().due(frame(1))
    assert Thorough().due(frame(777))
    assert not Thorough().due(frame(1, rare=False))
