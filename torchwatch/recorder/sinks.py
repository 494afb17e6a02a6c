"""The sinks of a recording: all are told, and one that fails is switched off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from torchwatch.records import Record
from torchwatch.sinks.sink import Delivers, Sink, Speaks

Say = Callable[[str, str], None]


class Sinks:
    """Passes records on.

    ``say`` is called with (name, sentence) for what a sink has to tell, and when one is switched off because
    it raised. It comes with each call: kept here, it would close a cycle with the recorder, which must go
    away without the collector.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = list(sinks)
        self._delivering = [s for s in self._sinks if isinstance(s, Delivers)]
        self._speaking = [s for s in self._sinks if isinstance(s, Speaks)]

    def write(self, records: list[Record], say: Say) -> None:
        """Pass the records to each sink, in order."""
        for sink in tuple(self._sinks):
            for record in records:
                if not self._told(sink, lambda sink=sink, record=record: sink.write(record), say):  # type: ignore[misc]
                    break
        self._listen(say)

    def drain(self, seconds: float, say: Say) -> dict[str, dict[str, int]] | None:
        """Wait for the sinks that deliver later, all of them ``seconds`` at most.

        Returns:
            What each has delivered and what not, by name; None where no sink counts.
        """
        until = time.monotonic() + seconds
        for sink in self._delivering:
            self._told(sink, lambda sink=sink: sink.drain(max(until - time.monotonic(), 0.0)), say)  # type: ignore[misc]
        self._listen(say)
        counts: dict[str, dict[str, int]] = {}
        for sink in self._delivering:
            self._told(sink, lambda sink=sink: counts.update({_free(sink.name, counts): _plain(sink)}), say)  # type: ignore[misc]
        return counts or None

    def close(self, seconds: float, say: Say) -> None:
        """Let the end record be delivered, ``seconds`` at most, and close those that still work."""
        self.drain(seconds, say)
        for sink in tuple(self._sinks):
            self._told(sink, sink.close, say)
        self._listen(say)

    def _listen(self, say: Say) -> None:
        for sink in self._speaking:
            self._told(sink, lambda sink=sink: _listen_to(sink, say), say)  # type: ignore[misc]

    def _told(self, sink: Sink, work: Callable[[], None], say: Say) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a sink never brings the recording down
            if sink not in self._sinks:
                return False  # switched off before, and named then
            self._sinks.remove(sink)
            name = type(sink).__name__
            say(name, f"{name} switched off: {type(error).__name__}: {error}")
            with contextlib.suppress(Exception):  # it is over for it; a port or a file should not stay open
                sink.close()
            return False
        return True


def _listen_to(sink: Speaks, say: Say) -> None:
    for sentence in sink.said():
        say(sink.name, sentence)


def _plain(sink: Delivers) -> dict[str, int]:
    """What a sink has counted, as the record wants it."""
    return {str(word): int(number) for word, number in sink.counts().items()}


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if another sink has it."""
    used = set(taken)
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(used) + 3))) if n not in used)
