"""Appending to a run file.

One ``os.write`` on an ``O_APPEND`` descriptor per batch of whole lines, nothing buffered: what was written
has left the process, so that a SIGKILL loses nothing of it and a forked child has nothing to flush a second
time. (There is no fsync; a power loss is the file system's affair.)

Nothing that happens to the file raises. Lines that cannot be written are counted as lost, and every later
write tries again. What a reader needs to make sense of the rest, the header and the latest layout, is written
again before the next line whenever it is not in the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from torchwatch.records import End, Layout, Record, RunHeader, encode
from torchwatch.runfile.opening import lock, open_new, require_usable, working_folder
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_MEANWHILE = "training goes on, the recording is lost until it can be"
_HEAD: tuple[type[Record], ...] = (RunHeader, Layout)


class RunWriter:
    """Appends records to a new run file; used by one thread at a time.

    A path that exists is left alone: the file becomes ``digits-2.jsonl`` (see :attr:`path`). Missing folders
    are made. File and folders are readable by their owner only. While it is open the file is locked
    (``flock``), so that a second watcher notices, in this process or another; where the file system has no
    locks, it does not.

    * Disk full, quota, I/O error: the lines are lost and counted. A line that was cut off is closed with a
      newline at the next write, so that it stays one unreadable line.
    * File deleted: it is made again at the same path (or at a free one next to it, if something else is there
      now), with header and layout; the lines that were in it count as lost.
    * File truncated by someone: header and layout are written again; the lines so far count as lost.
    * Descriptor closed by the host: the file is opened again. A descriptor that has become another file is
      never written to.
    * After a fork only the process that made the writer writes; in a child every call does nothing.

    Attributes:
        path: the file that is written; it can change when the file was deleted.
        lost_lines: lines that are not in the file.
        problem: the latest trouble in one sentence for the user, None while there was none.

    Raises:
        RunBusy: another live watcher writes that path.
        UsageError: the path is a directory or another thing that is not a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.lost_lines = 0
        self.problem: str | None = None
        self._folder = working_folder()  # the host may change its directory
        self._pid = os.getpid()
        self._closed = False
        self._failing = False
        self._fd: int | None = None
        self._identity: tuple[int, int] | None = None
        self._counts_links = True
        self._kept: dict[type[Record], bytes] = {}
        self._owed: set[type[Record]] = set()
        self._size = 0  # bytes that should be in the file
        self._lines = 0
        self._torn = False
        require_usable(self._folder / self.path, self.path)
        self._create()

    @property
    def failed(self) -> bool:
        """Whether the last write failed, or there is no file to write to."""
        return self._fd is None or self._failing

    @property
    def complete(self) -> bool:
        """Whether every line so far is in the file."""
        return self.lost_lines == 0

    def write(self, records: Iterable[Record]) -> list[int]:
        """Append the records as whole lines; when this returns they are in the file or counted as lost.

        Returns how long each line is (bytes). An :class:`End` gets ``complete`` and ``lost_lines`` as they
        are when it is written.
        """
        if self._closed or os.getpid() != self._pid:
            return [0 for _ in records]
        self._look_after()
        lines = [(type(r), self._encoded(r)) for r in records]
        if lines:
            self._append(lines)
        return [len(line) for _, line in lines]

    def close(self) -> None:
        """Close and unlock the file. Idempotent."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        fd, self._fd = self._fd, None
        if fd is None or _identity(fd) != self._identity:
            return
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # children may still hold the descriptor
            os.close(fd)
        except OSError as error:  # network file systems report late
            self._failing = True
            self._trouble(f"may have lost its last lines ({error.strerror})")

    def _encoded(self, record: Record) -> bytes:
        if isinstance(record, End) and self.lost_lines:
            record = dataclasses.replace(record, complete=False, lost_lines=self.lost_lines)
        return encode(record)

    def _append(self, lines: list[tuple[type[Record], bytes]]) -> None:
        owed = [(kind, self._kept[kind]) for kind in _HEAD if kind in self._owed]
        self._kept.update((kind, line) for kind, line in lines if kind in _HEAD)
        whole = owed + lines
        landed = self._write_lines([line for _, line in whole])
        self._lines += landed
        self._owed = {kind for kind, _ in whole[landed:] if kind in _HEAD}
        self.lost_lines += len(whole) - max(landed, len(owed))

    def _write_lines(self, lines: list[bytes]) -> int:
        """How many of the lines got into the file whole."""
        if self._fd is None:
            return 0
        mend = b"\n" if self._torn else b""
        data = mend + b"".join(lines)
        done, error = _write_all(self._fd, data)
        self._size += done
        self._failing = error is not None
        if done:
            self._torn = data[done - 1 : done] != b"\n"
        if error is None:
            return len(lines)
        self._trouble(f"cannot be written ({error.strerror}); {_MEANWHILE}")
        landed = data.count(b"\n", len(mend), done)
        if self._torn and self._lines + landed == 0:
            self._drop_torn_header(self._fd)
        return landed

    def _drop_torn_header(self, fd: int) -> None:
        """A file is known by its first line, so half a header must not stay in it."""
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            self._size, self._torn = 0, False

    def _look_after(self) -> None:
        """Notice what happened to the file since the last write, and put it right as far as possible."""
        if self._fd is None:
            self._create()
            return
        state = _state(self._fd)
        if state is None or (state.st_dev, state.st_ino) != self._identity:
            self._reopen()
        elif state.st_nlink == 0 and self._counts_links:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._make_again()
        elif state.st_size < self._size:
            self._trouble("was truncated by another program: what was in it is lost, the recording goes on")
            self.lost_lines += self._lines
            self._size, self._torn = state.st_size, state.st_size > 0
            self._lines = self._lines if state.st_size else 0
            self._owed = set(self._kept)

    def _reopen(self) -> None:
        """Open the file again after the host closed our descriptor."""
        try:
            fd = os.open(self._folder / self.path, os.O_WRONLY | os.O_APPEND)
        except OSError:
            self._make_again()
            return
        if _identity(fd) == self._identity:
            self._fd = fd
            lock(fd)
        else:
            os.close(fd)
            self._make_again()

    def _make_again(self) -> None:
        before = self.path
        self._fd = None
        self.lost_lines += self._lines
        self._size = self._lines = 0
        self._torn = False
        self._owed = set(self._kept)
        if self._create():
            where = "a new file" if self.path == before else printable(self.path)
            self._trouble(f"was deleted by another program: the recording goes on in {where}", before)

    def _create(self) -> bool:
        try:
            fd, path = open_new(self._folder / self.path)
        except OSError as error:
            self._trouble(f"cannot be made ({error.strerror}); {_MEANWHILE}")
            return False
        lock(fd)
        self.path = self.path.with_name(path.name)
        self._fd, self._identity = fd, _identity(fd)
        state = _state(fd)
        self._counts_links = state is not None and state.st_nlink > 0
        return True

    def _trouble(self, what: str, path: Path | None = None) -> None:
        self.problem = f"{printable(path or self.path)} {what}"


def _write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """How many bytes were written, and what stopped it."""
    view, done = memoryview(data), 0
    try:
        while done < len(data):
            count = os.write(fd, view[done:])
            if count == 0:
                return done, OSError(errno.EIO, os.strerror(errno.EIO))
            done += count
    except OSError as error:
        return done, error
    return done, None


def _state(fd: int) -> os.stat_result | None:
    try:
        return os.fstat(fd)
    except OSError:
        return None


def _identity(fd: int) -> tuple[int, int] | None:
    state = _state(fd)
    return None if state is None else (state.st_dev, state.st_ino)
