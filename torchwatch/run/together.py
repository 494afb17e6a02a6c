"""The files of all ranks of a run, read beside rank 0's: while they grow, and how each of them ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torchwatch.errors import RunFileError
from torchwatch.records import Alert, Record, RunHeader, Step, Steps
from torchwatch.run.files import rank_files
from torchwatch.runfile import follow, read_records

_LOOK_S = 1.0
_WORSE = {"info": 0, "warning": 1, "critical": 2}


def with_ranks(
    records: Iterable[Record | None],
    path: str | Path,
    *,
    patience_s: float = 6.0,
    poll_s: float = 0.2,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, Record | None]]:
    """The records of rank 0's file, and those of the other ranks' whenever it has nothing new.

    Args:
        records: those of rank 0's file, as :func:`~torchwatch.runfile.follow` or ``read_records`` gives them.
        path: rank 0's file; those of the other ranks are looked for beside it, also later ones.
        patience_s: how long the others may take to end once rank 0 has (seconds, default 6, as a recorder
            drains for 5); 0 for files that are not followed.
        poll_s: pause between two looks after rank 0's end (seconds, default 0.2).
        sleep: how to pause; replaced in tests.
        clock: seconds, monotonic.

    Yields:
        (rank, record); (0, None) when there is nothing new.
    """
    others: _Others | None = None
    for record in records:
        yield 0, record
        if isinstance(record, RunHeader):  # the first one, or that of a run that took the file's place
            others = _Others(Path(path), record, clock) if record.rank == 0 and record.world > 1 else None
        elif record is None and others is not None:
            yield from others.news()
    if others is None:
        return
    until = clock() + patience_s
    yield from others.news()
    while not others.all_ended and clock() < until:
        yield 0, None
        sleep(poll_s)
        yield from others.news()


class _Others:
    """The other ranks' files: found when they appear, each read as far as it goes."""

    def __init__(self, path: Path, header: RunHeader, clock: Callable[[], float]) -> None:
        self._path, self._header, self._clock = path, header, clock
        self._files: dict[Path, tuple[int, Iterator[Record | None]]] = {}
        self._ended: set[Path] = set()
        self._look_s = clock()

    @property
    def all_ended(self) -> bool:
        """Whether the end of every other rank that has a file was read."""
        return self._ended >= self._files.keys()

    def news(self) -> Iterator[tuple[int, Record]]:
        """What was written since the last call, one rank after the other."""
        self._find()
        for path, (rank, records) in self._files.items():
            if path in self._ended:
                continue
            try:
                for record in records:
                    if record is None:
                        break
                    yield rank, record
                else:
                    self._ended.add(path)
            except RunFileError:  # another file took its place
                self._ended.add(path)

    def _find(self) -> None:
        if len(self._files) >= self._header.world - 1 or self._clock() < self._look_s:
            return
        self._look_s = self._clock() + _LOOK_S
        for path in rank_files(self._path, self._header).paths:
            if path not in self._files:
                try:
                    rank = read_records(path).header.rank
                    self._files[path] = rank, follow(path, sleep=lambda _: None)
                except RunFileError:  # it was deleted between two looks
                    continue


@dataclass(frozen=True, slots=True)
class RankSummary:
    """How one rank's part of a run went, from its own file.

    Attributes:
        rank: its number, from 1.
        path: its file.
        status: of its end record; ``unfinished`` without one.
        steps: how many it made.
        health_score: 0 to 100, None without an end record.
        issues: the checks that raised an alert there, each with its worst severity, in the order of raising.
    """

    rank: int
    path: str
    status: str
    steps: int
    health_score: int | None
    issues: dict[str, str] = field(default_factory=dict)


def other_ranks(path: str | Path) -> list[RankSummary]:
    """The ranks besides rank 0 that have a file next to its file; none where it is not a run of several.

    Raises:
        RunFileError: ``path`` cannot be read.
    """
    path = Path(path)
    with read_records(path) as reader:
        header = reader.header
    return [_summary(found) for found in rank_files(path, header).paths]


def _summary(path: Path) -> RankSummary:
    steps, issues = 0, dict[str, str]()
    with read_records(path) as reader:
        for record in reader:
            if isinstance(record, Alert):
                severities = (issues.get(record.check, "info"), record.severity)
                issues[record.check] = max(severities, key=lambda word: _WORSE.get(word, 0))
            elif isinstance(record, (Step, Steps)):
                steps += len(record.step) if isinstance(record, Steps) else 1
        end, rank = reader.end, reader.header.rank
    status, score = ("unfinished", None) if end is None else (end.status, end.health_score)
    return RankSummary(rank, str(path), status, steps, score, issues)
