"""The sinks of a recording: all are told, and one that fails is switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from torchwatch.records import Record


class Sink(Protocol):
    """Where live records also go; called in the recorder thread, after the record is in the file."""

    def write(self, record: Record) -> None:
        """Take a record."""

    def close(self) -> None:
        """The run is over."""


class Sinks:
    """Passes records on.

    Args:
        sinks: who is told.
        say: called with (name, sentence) when one is switched off because it raised.
    """

    def __init__(self, sinks: Iterable[Sink], say: Callable[[str, str], None]) -> None:
        self._sinks, self._say = list(sinks), say

    def write(self, records: list[Record]) -> None:
        """Pass the records to each sink, in order."""
        for sink in tuple(self._sinks):
            for record in records:
                if not self._told(sink, lambda sink=sink, record=record: sink.write(record)):  # type: ignore[misc]
                    break

    def close(self) -> None:
        """Close all of them."""
        for sink in tuple(self._sinks):
            self._told(sink, sink.close)

    def _told(self, sink: Sink, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a sink never brings the recording down
            self._sinks.remove(sink)
            name = type(sink).__name__
            self._say(name, f"{name} switched off: {type(error).__name__}: {error}")
            return False
        return True
