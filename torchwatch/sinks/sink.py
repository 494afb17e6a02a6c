"""What a sink is, and what it may offer besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torchwatch.records import Record


class Sink(Protocol):
    """Where live records also go.

    Called in the recorder thread, after the record is in the file; the first one, the header, comes in the
    thread that enters the watcher. Neither method may wait for a network or a slow disk.
    """

    def write(self, record: Record) -> None:
        """Take a record."""

    def close(self) -> None:
        """The run is over."""


@runtime_checkable
class Delivers(Sink, Protocol):
    """A sink that hands things on later, in a thread of its own, and counts them."""

    name: str

    def drain(self, seconds: float) -> None:
        """Wait until everything taken so far is delivered, at most so long; the rest is given up."""

    def counts(self) -> dict[str, int]:
        """How much was ``delivered`` and how much is ``undelivered``, for the end record."""


@runtime_checkable
class Speaks(Sink, Protocol):
    """A sink that has something to tell whoever reads the run file."""

    name: str

    def said(self) -> list[str]:
        """What is to be said since the last call; never a secret."""
