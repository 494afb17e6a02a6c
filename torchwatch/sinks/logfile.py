"""Alerts and progress as a plain text file: no markup, no colours."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from torchwatch.records import End, RunHeader
from torchwatch.sinks.lines import AlertLines, end_text, header_text
from torchwatch.sinks.progress import Pace, Progress
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.records import Record


class LogFileSink:
    """Appends alerts, notes, a line of progress every few seconds and the end of the run to a text file.

    The file is opened at the first line and, if new, readable by its owner only. When it cannot be written
    that is said once, and nothing more is written.

    Args:
        path: the file.
        complain: called with a sentence when writing fails (default: print it on standard error).
    """

    def __init__(self, path: str | os.PathLike[str], complain: Callable[[str], None] | None = None) -> None:
        self._path = os.fspath(path)
        self._complain = complain or _on_stderr
        self._file: int | None = None
        self._closed = False
        self._lines = AlertLines()
        self._progress = Progress()
        self._pace = Pace()

    def write(self, record: Record) -> None:
        """Append the lines due because of this record."""
        self._progress.feed(record)
        for line in self._lines.feed(record):
            self.append(line.plain)
        if isinstance(record, RunHeader):
            self.append(header_text(record).plain)
        elif isinstance(record, End):
            self.append(end_text(record).plain)
        elif self._pace.is_due(self._progress):
            self.append(self._progress.line())

    def close(self) -> None:
        """Append what is still held back and close the file."""
        for line in self._lines.finish():
            self.append(line.plain)
        self._closed = True
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def append(self, text: str) -> None:
        """Append a line."""
        if self._closed:
            return
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            rest = f"{text}\n".encode(errors="backslashreplace")
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._closed = True
            why = error.strerror or error
            self._complain(f"the log file {printable(self._path)} cannot be written: {why}; it ends here")


def _on_stderr(sentence: str) -> None:
    print(f"torchwatch: {sentence}", file=sys.stderr)  # noqa: T201
