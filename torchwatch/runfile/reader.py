"""Reading a run file as a stream of records, whatever happened to the file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from torchwatch.errors import NewerSchema, NotARunFile, RunFileError
from torchwatch.records import End, Record, RunHeader, Unknown, decode, decode_header
from torchwatch.text import printable

if TYPE_CHECKING:
    from io import BufferedReader
    from types import TracebackType

LONGEST_LINE = 64 << 20
"""Bytes; a longer line is passed over as unreadable, so that memory stays bounded."""

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


class RecordReader(Iterator[Record]):
    """The records of a run file in their order, the header first; in memory that does not grow with the file.

    Plain or gzip-compressed (told by the content, not the name; several members, or the end cut off, are
    fine). A line that cannot be read (cut off, or a known field holds a value of the wrong type) is passed
    over and counted. The header again (the writer repeats it when the file was tampered with) is passed
    over. Where another run begins in the same file, reading stops.

    Attributes:
        path: the file.
        header: its first line.
        torn_lines: unreadable lines so far.
        unknown_lines: lines so far of kinds that this version does not know; they are yielded as ``Unknown``.
        end: the end record once it has been read; a run without one was killed, or is still running.

    Raises:
        NotARunFile: the path is missing, a directory, empty, or not a run file.
        NewerSchema: the file was written with a newer schema.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.torn_lines = 0
        self.unknown_lines = 0
        self.end: End | None = None
        self._lines = _lines(self.path)
        try:
            first = next(self._lines, b"")
            self.header = read_header(b"?" if first is None else first, self.path)
        except RunFileError:
            self._lines.close()
            raise
        self._records = self._read()

    def __next__(self) -> Record:
        return next(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it also closes by itself at its end, or when the reader is dropped."""
        self._records.close()
        self._lines.close()

    def _read(self) -> Generator[Record, None, None]:
        yield self.header
        for line in self._lines:
            record = None if line is None else read_line(line)
            if record is None:
                self.torn_lines += 1
                continue
            if isinstance(record, RunHeader):
                if record.run_id != self.header.run_id:
                    return
                continue
            if isinstance(record, End):
                self.end = record
            elif isinstance(record, Unknown):
                self.unknown_lines += 1
            yield record


def read_records(path: str | Path) -> RecordReader:
    """The records of a run file as a stream, the header first; see :class:`RecordReader`.

    Raises:
        NotARunFile: the path is missing, a directory, empty, or not a run file.
        NewerSchema: the file was written with a newer schema.
    """
    return RecordReader(path)


def read_header(line: bytes, path: Path) -> RunHeader:
    """The header in the first line of the file; errors name the file. Raises as :func:`read_records`."""
    shown = printable(path)
    if not line.strip():
        raise NotARunFile(f"{shown} is empty: its run has written nothing so far")
    try:
        return decode_header(line.removeprefix(_BOM))
    except NewerSchema as error:
        raise NewerSchema(f"{shown} cannot be read: {error}") from None
    except NotARunFile as error:
        raise NotARunFile(f"{shown} is not a run file: {error}; give a file that a Watcher wrote") from None


def read_line(line: bytes) -> Record | None:
    """The record of a line, None when it cannot be read."""
    try:
        return decode(line)
    except ValueError:
        return None


def open_run(path: Path) -> BufferedReader:
    """The file, open for reading. Raises NotARunFile when there is none."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotARunFile(f"there is no file {printable(path)}: check the path") from None
    except IsADirectoryError:
        raise NotARunFile(f"{printable(path)} is a directory: give the run file (.jsonl) in it") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NotARunFile(f"{printable(path)} cannot be opened: {why}") from None


def is_gzip(path: Path) -> bool:
    """Whether the content is gzip-compressed. Raises NotARunFile when it cannot be opened."""
    with open_run(path) as file:
        return file.read(2) == _GZIP


def _lines(path: Path) -> Generator[bytes | None, None, None]:
    """The lines that are not blank; None for one that is too long, or where compressed data is damaged."""
    with open_run(path) as raw:
        compressed = raw.peek(2)[:2] == _GZIP
        with gzip.GzipFile(fileobj=raw) if compressed else raw as file:
            try:
                while line := file.readline(LONGEST_LINE):
                    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                        yield None
                        while line and not line.endswith(b"\n"):
                            line = file.readline(LONGEST_LINE)
                    elif not line.isspace():
                        yield line
            except (OSError, EOFError, zlib.error):
                yield None
