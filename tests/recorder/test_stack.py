"""The digest says whether a thread has moved."""

from __future__ import annotations

import re
import threading

from torchwatch.recorder.stack import digest


class Parked:
    """A thread that waits in one of two places."""

    def __init__(self) -> None:
        self.go, self.arrived = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self._first()
        self._second()

    def _first(self) -> None:
        self.arrived.set()
        self.go.wait(10)

    def _second(self) -> None:
        self.go.clear()
        self.arrived.set()
        self.go.wait(10)

    def seen(self) -> set[str | None]:
        """Digests of the place where it waits; it may take a moment to get there."""
        self.arrived.wait(10)
        for _ in range(10_000):
            looks = {digest(self.thread.ident) for _ in range(20)}
            if len(looks) == 1:
                return looks
        raise AssertionError("it never stands still")

    def move(self) -> None:
        self.arrived.clear()
        self.go.set()


def test_a_thread_that_stands_still_has_one_digest_and_another_elsewhere() -> None:
    parked = Parked()
    first = parked.seen()
    parked.move()
    second = parked.seen()
    parked.go.set()
    parked.thread.join(10)
    assert first != second
    assert all(re.fullmatch(r"[0-9a-f]{8}", d) for d in first | second)


def test_lines_count_and_a_thread_that_is_gone_has_none() -> None:
    here = threading.get_ident()
    one = digest(here)
    other = digest(here)
    assert one != other
    assert digest(-1) is None


def test_no_frame_of_the_host_is_kept() -> None:
    class Payload:
        pass

    import weakref

    def leaf() -> weakref.ref[Payload]:
        payload = Payload()
        digest(threading.get_ident())
        return weakref.ref(payload)

    assert leaf()() is None
