"""A line of fast steps ends where the loss turns bad, so that it is told of that very step."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_recorder import Setup
from torchwatch import WatchConfig
from torchwatch.probe import Block
from torchwatch.records import Record, Step, Steps

FAST = WatchConfig(interval_steps=1000, fast_steps_per_s=1e-9, system_s=1000, queue_steps=1000)


def ends(records: list[Record]) -> list[int]:
    """Last steps of the lines."""
    steps = [r for r in records if isinstance(r, (Step, Steps))]
    return [r.step[-1] if isinstance(r, Steps) else r.step for r in steps]


def block(first: int, losses: list[float]) -> Block:
    made = Block(first, 0, 0.001 * first)
    made.ends = [0.001 * (first + n) for n in range(1, len(losses) + 1)]
    made.logged = [(at, "loss", loss) for at, loss in enumerate(losses)]
    made.rates = [(0, [0.1])]
    return made


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_of_single_steps(tmp_path, bad: float) -> None:
    setup = Setup(tmp_path, FAST)
    for number in range(1, 21):
        setup.recorder.put(setup.frame(number, bad if number in (7, 8, 15) else 1.0))
    assert ends(setup.end()) == [7, 15, 20]


def test_of_a_step_that_was_looked_at_out_of_turn(tmp_path) -> None:
    setup = Setup(tmp_path, FAST)
    for number in range(1, 21):
        frame = setup.frame(number)
        frame.urgent = number == 7
        setup.recorder.put(frame)
    assert ends(setup.end()) == [7, 20]


BAD = st.sampled_from([1.0, 1.0, math.nan])


@given(st.lists(st.lists(BAD, min_size=1, max_size=12), min_size=1, max_size=5), st.integers(3, 20))
@settings(deadline=None, max_examples=60)
def test_of_blocks(tmp_path_factory, parts: list[list[float]], interval: int) -> None:
    """Lines may end elsewhere as well (where an interval does), but no turn is in the middle of one."""
    config = WatchConfig(interval_steps=interval, fast_steps_per_s=1e-9, system_s=1000)
    setup = Setup(tmp_path_factory.mktemp("turns"), config)
    first = 1
    for losses in parts:
        setup.recorder.put(block(first, losses))
        first += len(losses)
    records = setup.end()
    lines = [r.step if isinstance(r, Steps) else [r.step] for r in records if isinstance(r, (Step, Steps))]
    assert [n for line in lines for n in line] == list(range(1, first))
    every = [1.0, *itertools.chain.from_iterable(parts)]
    turns = {n for n in range(1, first) if math.isnan(every[n]) and not math.isnan(every[n - 1])}
    assert turns <= set(ends(records))
