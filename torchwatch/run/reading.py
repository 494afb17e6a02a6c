"""Opening a run for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.run.files import rank_files
from torchwatch.run.joined import JoinedRun
from torchwatch.run.run import Run

if TYPE_CHECKING:
    from pathlib import Path


def read_run(path: str | Path, *, ranks: bool = True) -> Run:
    """A run as columns; see :class:`~torchwatch.run.Run`.

    Args:
        path: the run file.
        ranks: where it is rank 0's of a distributed run, join the files of the other ranks that lie beside it
            (``digits.rank1.jsonl`` …), see :class:`~torchwatch.run.JoinedRun`. A file of another rank is read
            alone.

    Raises:
        NotARunFile: the path is missing, a directory, empty, or not a run file.
        NewerSchema: the file was written with a newer schema.
    """
    run = Run(path)
    if not ranks or run.header.rank != 0 or run.header.world < 2:
        return run
    found = rank_files(run.path, run.header)
    return JoinedRun(run, [Run(p) for p in found.paths], found.gaps)
