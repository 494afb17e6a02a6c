"""Following a run file while it is being written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from torchwatch.records import End, Record, RunHeader
from torchwatch.runfile.reader import LONGEST_LINE, is_gzip, open_run, read_header, read_line, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

_CHUNK = 1 << 20


def follow(
    path: str | Path,
    *,
    poll_s: float = 0.2,
    wait: bool = False,
    past_end: bool = False,
    stop: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Record | None]:
    """The records of a run file as they are written, the header first; None when there is nothing new.

    A last line that is not complete yet is held back. When the file is truncated, or replaced by another, it
    is read again from its top: a header that is not the first record yielded means "forget what you saw".
    A file that was deleted is waited for. A compressed file does not grow, so it is read to its end.

    Args:
        path: the run file.
        poll_s: pause between two looks at the file (seconds, default 0.2).
        wait: wait for a file that is not there, or has no header, so far (default False).
        past_end: go on after the end record (default False: the iterator ends with it).
        stop: asked at every look; the iterator ends when it says True.
        sleep: how to pause; replaced in tests.

    Raises:
        NotARunFile: the path is a directory or not a run file; without ``wait`` also missing or empty.
        NewerSchema: the file was written with a newer schema.
    """
    path = Path(path)
    if wait and not path.exists():
        return _follow(path, poll_s, past_end, stop, sleep)
    if not wait:
        read_records(path).close()
    if is_gzip(path):
        return read_records(path)
    return _follow(path, poll_s, past_end, stop, sleep)


def _follow(
    path: Path,
    poll_s: float,
    past_end: bool,  # noqa: FBT001 - private, always passed by position
    stop: Callable[[], bool],
    sleep: Callable[[float], object],
) -> Iterator[Record | None]:
    tail = _Tail(path)
    try:
        while not stop():
            for record in tail.fresh():
                yield record
                if isinstance(record, End) and not past_end:
                    return
            yield None
            sleep(poll_s)
    finally:
        tail.close()


class _Tail:
    """A file that may grow, shrink, vanish and come back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BufferedReader | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.close()
        self._file, self._offset, self._held = None, 0, b""
        self._run: str | None = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def fresh(self) -> Iterator[Record]:
        """Records that were completed since the last call."""
        self._open()
        yield from self._new_records()
        if self._changed():
            self._start_over()
            self._open()
            yield from self._new_records()

    def _open(self) -> None:
        if self._file is None and self._path.exists():
            self._file = open_run(self._path)

    def _new_records(self) -> Iterator[Record]:
        while self._file is not None and (chunk := self._file.read(_CHUNK)):
            self._offset += len(chunk)
            *lines, self._held = (self._held + chunk).split(b"\n")
            if len(self._held) > LONGEST_LINE:
                self._held = b""  # what follows is the unreadable rest of a line
            for line in lines:
                record = self._record(line)
                if record is not None:
                    yield record

    def _record(self, line: bytes) -> Record | None:
        if self._run is None:
            header = read_header(line, self._path)
            self._run = header.run_id
            return header
        record = read_line(line)
        if isinstance(record, RunHeader):
            if record.run_id == self._run:
                return None
            self._run = record.run_id
        return record

    def _changed(self) -> bool:
        """Whether there is another file at the path now, or less in it than was read."""
        if self._file is None:
            return False
        try:
            there = self._path.stat()
        except OSError:
            return False
        same = os.path.samestat(there, os.fstat(self._file.fileno()))
        return not same or there.st_size < self._offset
