"""Alerts as they come, on standard error."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from rich.control import Control
from rich.segment import ControlType

from torchwatch.records import End
from torchwatch.sinks.lines import AlertLines, Terminal, end_text, show
from torchwatch.sinks.logfile import LogFileSink

if TYPE_CHECKING:
    import os

    from rich.text import Text

    from torchwatch.records import Record

_CLEARED_LINE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class TerminalSink:
    """Shows alerts, notes and the end of the run; a healthy run is one line.

    Args:
        stream: where to write (default: standard error). Colours only if it is a terminal; ``NO_COLOR`` and
            ``TERM=dumb`` are obeyed.
        log_file: also append the same, and a line of progress every few seconds, to this file as plain text.
    """

    def __init__(self, stream: IO[str] | None = None, log_file: str | os.PathLike[str] | None = None) -> None:
        self._console = Terminal(file=stream, stderr=True)
        self._lines = AlertLines()
        self._log = None if log_file is None else LogFileSink(log_file, self._complain)

    def write(self, record: Record) -> None:
        """Show the record if it is something to show."""
        for line in self._lines.feed(record):
            self._show(line)
        if isinstance(record, End):
            self._show(end_text(record))
        if self._log is not None:
            self._log.write(record)

    def close(self) -> None:
        """Show what is still held back and close the log file."""
        for line in self._lines.finish():
            self._show(line)
        if self._log is not None:
            self._log.close()

    def _show(self, text: Text) -> None:
        """Print lines; on a terminal the host's unfinished line, such as a progress bar, makes room first."""
        if self._console.is_terminal:
            self._console.control(_CLEARED_LINE)
        show(self._console, text)

    def _complain(self, sentence: str) -> None:
        self._console.print(f"torchwatch: {sentence}", soft_wrap=True, highlight=False)
