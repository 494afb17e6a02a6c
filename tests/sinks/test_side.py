"""Deliveries in a thread of their own: in order, counted exactly once, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.sinks._side import Side, SideSink

_MADE: list[Side[Any]] = []


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    while _MADE:
        side = _MADE.pop()
        side.close()
        assert side.ended(10)


def made(deliver: Callable[[Any], bool], **options: Any) -> Side[Any]:
    _MADE.append(Side("test", deliver, **options))
    return _MADE[-1]


def test_things_are_delivered_in_order() -> None:
    seen: list[int] = []
    side = made(lambda n: seen.append(n) is None)
    for n in range(50):
        assert side.put(n)
    side.drain(5)
    assert seen == list(range(50))
    assert (side.delivered, side.undelivered) == (50, 0)


def test_no_thread_before_there_is_something_to_deliver() -> None:
    before = threading.active_count()
    side = made(lambda _: True)
    side.drain(1)
    side.close()
    assert threading.active_count() == before


def test_what_does_not_fit_is_counted_and_the_rest_keeps_its_order() -> None:
    gate, seen = threading.Event(), []

    def deliver(n: int) -> bool:
        gate.wait(5)
        seen.append(n)
        return True

    side = made(deliver, room=3)
    began = time.perf_counter()
    taken = [side.put(n) for n in range(20)]
    assert time.perf_counter() - began < 4
    gate.set()
    side.drain(5)
    assert seen == [n for n, fits in enumerate(taken) if fits]
    assert (side.delivered, side.undelivered) == (len(seen), 20 - len(seen))
    assert 3 <= len(seen) <= 4


def test_a_delivery_that_hangs_is_given_up_with_all_behind_it() -> None:
    gate = threading.Event()
    side = made(lambda _: gate.wait(5))
    for n in range(3):
        side.put(n)
    began = time.perf_counter()
    side.drain(0.05)
    assert time.perf_counter() - began < 4
    assert (side.delivered, side.undelivered) == (0, 3)
    began = time.perf_counter()
    side.drain(60)
    assert time.perf_counter() - began < 4, "nobody waits for it twice"
    assert not side.put(4)
    gate.set()
    assert side.ended(5)
    assert (side.delivered, side.undelivered) == (0, 4), "given up once is given up"


def test_after_a_drain_that_was_enough_more_can_come() -> None:
    side = made(lambda _: True)
    side.put(1)
    side.drain(5)
    assert side.put(2)
    side.drain(5)
    side.close()
    assert side.delivered == 2
    assert side.ended(5)
    assert not side.put(3)


def test_what_a_delivery_raises_ends_them_and_reaches_the_sink() -> None:
    gate = threading.Event()

    def deliver(_: int) -> bool:
        gate.wait(5)
        raise KeyError("broken")

    class Broken(SideSink[int]):
        name = "broken"

    sink = Broken(made(deliver))
    sink.put(1)
    sink.put(2)
    gate.set()
    with pytest.raises(KeyError):
        sink.drain(5)
    with pytest.raises(KeyError):
        sink.put(3)
    assert sink.counts() == {"delivered": 0, "undelivered": 3}


def test_a_pause_longer_than_anyone_waits_is_not_made() -> None:
    answers: list[bool] = []
    paused = threading.Event()

    def deliver(seconds: float) -> bool:
        paused.set()
        answers.append(side.pause(seconds))
        return answers[-1]

    side = made(deliver)
    side.put(60.0)
    paused.wait(5)
    began = time.perf_counter()
    side.drain(20)
    assert time.perf_counter() - began < 10, "given up at once"
    assert answers == [False]
    side.put(0.01)
    side.drain(20)
    assert answers == [False, True]
    assert (side.delivered, side.undelivered) == (1, 1)


@settings(deadline=None, max_examples=30)
@given(
    outcomes=st.lists(st.sampled_from(["good", "bad", "slow", "broken"]), max_size=12),
    room=st.integers(1, 8),
    patience=st.sampled_from([0.0, 0.005, 5.0]),
)
def test_everything_put_is_counted_exactly_once(outcomes: list[str], room: int, patience: float) -> None:
    def deliver(outcome: str) -> bool:
        if outcome == "slow":
            time.sleep(0.001)
        if outcome == "broken":
            raise ValueError(outcome)
        return outcome != "bad"

    side = made(deliver, room=room)
    for outcome in outcomes:
        side.put(outcome)
    side.drain(patience)
    side.close()
    assert side.ended(5)
    assert side.delivered + side.undelivered == len(outcomes)
    assert side.delivered <= sum(o in ("good", "slow") for o in outcomes)
