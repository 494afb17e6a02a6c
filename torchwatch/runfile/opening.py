"""Where a new run file goes: a path that is free, in private folders, locked against a second writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from torchwatch.errors import RunBusy, UsageError
from torchwatch.text import printable

_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL


def unused_path(path: Path) -> Path:
    """The path itself if nothing is there, else the first free one of ``name-2.suffix`` and so on."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def working_folder() -> Path:
    """The process's directory, as far as there is one."""
    try:
        return Path.cwd()
    except OSError:  # the host's directory was deleted
        return Path()


def require_usable(path: Path, shown: Path) -> None:
    """Refuse a path at which there is something else than a finished file; ``shown`` stands in the message.

    Raises:
        RunBusy: a live watcher writes the file that is there.
        UsageError: a directory or another thing that is not a file, or no path at all.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    except ValueError as error:
        raise UsageError(f"{printable(shown)} is not a path: {error}") from None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{printable(shown)} is a directory: give the path of a new file in it")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{printable(shown)} is not a regular file: give the path of a new file")
    if _is_locked(path):
        raise RunBusy(f"{printable(shown)} is being written by another live watcher: give another path")


def open_new(path: Path) -> tuple[int, Path]:
    """A new file at the path, or at the first free one next to it; open for appending. Raises OSError."""
    private_folder(path.parent)
    while True:
        free = unused_path(path)
        try:
            return os.open(free, _NEW, 0o600), free  # os.open makes it close-on-exec by itself
        except FileExistsError:  # somebody was quicker
            if not os.path.lexists(free):
                raise


def private_folder(path: Path) -> None:
    """Make the folder and its missing parents, private; what is there stays as it is.

    (``makedirs`` gives its mode to the last one only.)
    """
    if not path.exists():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def lock(fd: int) -> None:
    """Keep other writers away from the file for as long as it is open."""
    with contextlib.suppress(OSError):  # some network file systems have no locks
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
