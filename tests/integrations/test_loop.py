"""A loop that is left by an exception is noticed, and by which one if that is known."""

from __future__ import annotations

import sys
import threading

import pytest
from torchwatch_integrations._loop import Loop, LoopWatch, is_running, left_by


def train(work: object) -> None:
    assert callable(work)
    work()


LOOP = Loop(train.__code__, "train()")


def test_a_function_is_running_or_not() -> None:
    me = threading.get_ident()
    seen: list[bool] = []
    train(lambda: seen.append(is_running(LOOP.code, me)))
    assert seen == [True]
    assert not is_running(LOOP.code, me)
    assert not is_running(LOOP.code, -1)


def test_it_says_once_that_the_loop_was_left_and_not_before() -> None:
    left, looked = threading.Event(), threading.Event()
    watches: list[LoopWatch] = []

    def fail() -> None:
        watches.append(LoopWatch(LOOP, left.set, every_s=0.01))
        watches[0].start()
        assert not looked.wait(0.1)
        assert not left.is_set()
        raise ValueError

    with pytest.raises(ValueError):
        train(fail)
    assert left.wait(10)
    watches[0].stop()
    assert not watches[0]._thread.is_alive()


def test_it_stops_with_the_loop() -> None:
    left = threading.Event()
    watches: list[LoopWatch] = []

    def work() -> None:
        watches.append(LoopWatch(LOOP, left.set, every_s=60))
        watches[0].start()

    train(work)
    watches[0].stop()
    assert not watches[0]._thread.is_alive()
    assert not left.is_set()


def test_where_the_loop_does_not_run_there_is_nothing_to_notice() -> None:
    watch = LoopWatch(LOOP, lambda: pytest.fail("nothing was left"), every_s=0.01)
    watch.start()
    watch.stop()
    assert not watch._thread.is_alive()


def test_it_can_be_stopped_from_its_own_thread() -> None:
    done = threading.Event()
    watches: list[LoopWatch] = []

    def left() -> None:
        watches[0].stop()
        done.set()

    def work() -> None:
        watches.append(LoopWatch(LOOP, left, every_s=0.01))
        watches[0].start()

    train(work)
    assert done.wait(10)


@pytest.mark.parametrize("attribute", ["last_exc", "last_value"])
def test_the_exception_that_the_interpreter_printed(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("broken")

    for name in ("last_exc", "last_value"):
        monkeypatch.setattr(sys, name, None, raising=False)
    with pytest.raises(ValueError, match="broken") as raised:
        train(fail)
    assert isinstance(left_by(LOOP), RuntimeError)
    assert str(left_by(LOOP)).startswith("train() was left by an exception that its caller caught")
    monkeypatch.setattr(sys, attribute, raised.value, raising=False)
    assert left_by(LOOP) is raised.value


def test_an_exception_of_something_else_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError) as raised:
        raise KeyError("elsewhere")
    monkeypatch.setattr(sys, "last_value", raised.value, raising=False)
    assert isinstance(left_by(LOOP), RuntimeError)
