"""A thread of its own for what may take long: network, other people's libraries, slow disks.

The recorder only appends to a bounded queue. Things are delivered one at a time, in order; each is counted
exactly once, as delivered or as undelivered.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

ROOM = 1000
"""So many things wait at most; what comes on top is counted as undelivered."""


class Side(Generic[T]):
    """A bounded queue and the thread that empties it; the thread begins with the first thing put.

    Args:
        name: for the thread.
        deliver: called in the thread with each thing; returns whether it was delivered. What it raises ends
            the deliveries: it is kept in ``error``, and whatever comes is undelivered.
        room: how many things may wait.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[T], bool],
        *,
        room: int = ROOM,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.delivered = self.undelivered = 0
        self.error: Exception | None = None
        self._name, self._deliver, self._room, self._clock = name, deliver, room, clock
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False
        self._until: float | None = None  # while someone drains: when the patience ends

    def put(self, thing: T) -> bool:
        """Queue it; never waits. False where there is no room, or nothing is taken any more."""
        with self._changed:
            if self._closed or len(self._waiting) >= self._room:
                self.undelivered += 1
                return False
            self._waiting.append(thing)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"torchwatch-{self._name}", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
            return True

    def drain(self, seconds: float) -> None:
        """Wait until all is delivered, ``seconds`` at most; what is left then is undelivered.

        Where that is not enough for what is being delivered right now, nothing more is taken: the thread may
        hang in it for ever.
        """
        with self._changed:
            self._until = self._clock() + seconds
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._idle or self._closed, timeout=seconds)
            self._until = None
            if not self._idle:
                self._give_up()

    def close(self) -> None:
        """Take nothing more and let the thread end; does not wait. What is left is undelivered."""
        with self._changed:
            if not self._idle:
                self._give_up()
            self._closed = True
            self._changed.notify_all()

    def ended(self, seconds: float) -> bool:
        """After :meth:`close`: whether the thread is through, waiting for it so long at most."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def pause(self, seconds: float) -> bool:
        """Wait between two tries, in the thread; False, at once, where nobody will wait that long."""
        with self._changed:
            end = self._clock() + seconds
            while not self._closed and (left := end - self._clock()) > 0:
                if self._until is not None and end > self._until:
                    return False
                self._changed.wait(left)
            return not self._closed

    @property
    def _idle(self) -> bool:
        return not self._waiting and not self._busy

    def _give_up(self) -> None:
        if self._closed:
            return  # what is being delivered was counted when that happened
        self.undelivered += len(self._waiting) + self._busy
        self._waiting.clear()
        self._closed = True

    def _run(self) -> None:
        while self._take():
            pass

    def _take(self) -> bool:
        """Deliver the next thing; False where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return False
            thing, self._busy = self._waiting.popleft(), True
        delivered, error = False, None
        try:
            delivered = self._deliver(thing)
        except Exception as problem:  # noqa: BLE001 - the recorder hears of it at the next record
            error = problem
        with self._changed:
            self._busy = False
            if not self._closed:  # else it was counted when it was given up
                self.delivered += delivered
                self.undelivered += not delivered
            if error is not None and not self._closed:
                self.error = error
                self._give_up()
            self._changed.notify_all()
            return not self._closed


class SideSink(Generic[T]):
    """What the sinks with a thread of their own have in common: see :class:`torchwatch.sinks.sink.Delivers`.

    Attributes:
        side: the queue and its thread.
    """

    name = ""

    def __init__(self, side: Side[T]) -> None:
        self.side = side
        self._sentences: deque[str] = deque()

    def put(self, thing: T) -> None:
        """Queue it.

        Raises:
            Exception: what an earlier delivery raised.
        """
        self.side.put(thing)
        if self.side.error is not None:
            raise self.side.error

    def drain(self, seconds: float) -> None:
        """Wait until all is delivered, ``seconds`` at most.

        Raises:
            Exception: what a delivery raised.
        """
        self.side.drain(seconds)
        if self.side.error is not None:
            raise self.side.error

    def close(self) -> None:
        """Take nothing more."""
        self.side.close()

    def counts(self) -> dict[str, int]:
        """What was delivered so far and what not."""
        return {"delivered": self.side.delivered, "undelivered": self.side.undelivered}

    def say(self, sentence: str) -> None:
        """Something for the run file; from any thread."""
        self._sentences.append(sentence)

    def said(self) -> list[str]:
        """What is to be said since the last call."""
        return [self._sentences.popleft() for _ in range(len(self._sentences))]
