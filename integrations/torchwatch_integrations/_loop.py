"""Noticing that a trainer's loop was left by an exception, for trainers that tell their callbacks nothing."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType


@dataclass(frozen=True, slots=True)
class Loop:
    """A function of a trainer that lasts as long as a training: its code, and what users call it."""

    code: CodeType
    name: str


class LoopWatch:
    """A thread that looks once a second whether a function is still running in the thread that made this.

    Args:
        loop: the function.
        left: called in a thread of ours, once, when it is not running any more. It must hold its objects
            weakly, or they live until then.
        every_s: time between two looks (seconds).
    """

    def __init__(self, loop: Loop, left: Callable[[], object], every_s: float = 1.0) -> None:
        self._code, self._left, self._every_s = loop.code, left, every_s
        self._host = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="torchwatch-loop", daemon=True)

    def start(self) -> None:
        """Begin to look, if the function is running at all: somebody else may drive its callbacks."""
        if is_running(self._code, self._host):
            self._thread.start()

    def stop(self) -> None:
        """Look no more; waits for the thread, unless called from it."""
        self._over.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every_s):
            if not is_running(self._code, self._host):
                self._left()
                return


def is_running(code: CodeType, thread: int) -> bool:
    """Whether a function with this code is on the stack of a thread."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def left_by(loop: Loop) -> BaseException:
    """The exception by which a function was left.

    It is known where nobody caught it: the interpreter keeps what it printed last. For one that was caught a
    RuntimeError stands that says so.
    """
    last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)  # the first from Python 3.12 on
    if isinstance(last, BaseException):
        frames = traceback.walk_tb(last.__traceback__)
        if any(frame.f_code is loop.code for frame, _ in frames):
            return last
    return RuntimeError(
        f"{loop.name} was left by an exception that its caller caught, so that it is not known here"
    )
