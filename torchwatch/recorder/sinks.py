"""The sinks of a recording: all are told, and one that fails is switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from torchwatch.records import Record

Say = Callable[[str, str], None]


class Sink(Protocol):
    """Where live records also go; called in the recorder thread, after the record is in the file."""

    def write(self, record: Record) -> None:
        """Take a record."""

    def close(self) -> None:
        """The run is over."""


class Sinks:
    """Passes records on.

    ``say`` is called with (name, sentence) when one is switched off because it raised. It comes with each
    call: kept here, it would close a cycle with the recorder, which must go away without the collector.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks = list(sinks)

    def write(self, records: list[Record], say: Say) -> None:
        """Pass the records to each sink, in order."""
        for sink in tuple(self._sinks):
            for record in records:
                if not self._told(sink, lambda sink=sink, record=record: sink.write(record), say):  # type: ignore[misc]
                    break

    def close(self, say: Say) -> None:
        """Close all of them."""
        for sink in tuple(self._sinks):
            self._told(sink, sink.close, say)

    def _told(self, sink: Sink, work: Callable[[], None], say: Say) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a sink never brings the recording down
            self._sinks.remove(sink)
            name = type(sink).__name__
            say(name, f"{name} switched off: {type(error).__name__}: {error}")
            return False
        return True
