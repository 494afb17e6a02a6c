"""Which files next to rank 0's belong to the other ranks of the same run."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torchwatch.errors import RunFileError
from torchwatch.runfile import read_records
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchwatch.records import RunHeader

_APART_S = 600.0
"""Ranks of one run begin within this time of each other (seconds)."""


@dataclass(frozen=True, slots=True)
class RankFiles:
    """``paths`` of the files of ranks 1, 2 … as far as there are any; ``gaps`` says what is not there."""

    paths: list[Path] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)


def rank_files(path: Path, header: RunHeader) -> RankFiles:
    """The files of the other ranks of a run.

    A rank's file is ``<name>.rank<r>.jsonl``, numbered by its own writer where that name was taken: beside
    ``digits-2.jsonl`` may lie ``digits.rank1-2.jsonl`` or, if only rank 0 was watched the time before,
    ``digits.rank1.jsonl``. Every rank draws its own run id (a common one would take a collective), so that
    the number of ranks and the time of the beginning decide: a file belongs to the rank 0 that began nearest
    to it, and no more than ten minutes from it.

    Args:
        path: the file of rank 0.
        header: its header. Nothing is looked for unless it is of rank 0 of several.
    """
    if header.rank != 0 or header.world < 2:
        return RankFiles()
    family = _Family(path, header)
    found, said = family.ranks()
    gaps = [said[rank] for rank in sorted(said.keys() - found.keys())]
    silent = _between(sorted(found.keys() | said.keys()), header.world)
    if silent:
        gaps.append(f"no file of {silent} of {header.world}")
    return RankFiles([found[rank] for rank in sorted(found)], gaps)


def _between(known: list[int], world: int) -> str:
    """The ranks from 1 on that are not known, in words: ``rank 2``, ``ranks 1 to 3, 7``; empty if none."""
    starts, ends = [1, *(rank + 1 for rank in known)], [*(rank - 1 for rank in known), world - 1]
    spans = [(start, end) for start, end in zip(starts, ends, strict=True) if start <= end]
    words = ", ".join(str(start) if start == end else f"{start} to {end}" for start, end in spans)
    alone = len(spans) == 1 and spans[0][0] == spans[0][1]
    return (f"rank {words}" if alone else f"ranks {words}") if spans else ""


class _Family:
    """Files whose names say that they may be of the same run as rank 0's file."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        self._path, self._header = path, header
        name = path.name.removesuffix(".gz")
        self._suffix = Path(name).suffix
        stem = name.removesuffix(self._suffix)
        numbered = re.fullmatch(r"(.+)-\d+", stem)
        self._stems = [stem] + ([numbered[1]] if numbered else [])
        self._names = sorted(p.name for p in path.absolute().parent.iterdir())

    def ranks(self) -> tuple[dict[int, Path], dict[int, str]]:
        """The file of each rank that has one, and of others what is wrong with the one of that name."""
        found: dict[int, Path] = {}
        said: dict[int, str] = {}
        best: dict[int, float] = {}
        for stem, rank, path in self._candidates():
            try:
                header = _header(path)
            except RunFileError as error:
                said[rank] = f"rank {rank}: {error}"
                continue
            away = _apart_s(header, self._header)
            if (header.rank, header.world) != (rank, self._header.world) or not self._is_ours(
                stem, header, away
            ):
                said.setdefault(rank, f"rank {rank}: {printable(path.name)} is of another run")
            elif rank not in best or away < best[rank]:
                best[rank], found[rank] = away, path
        return found, said

    def _candidates(self) -> Iterable[tuple[str, int, Path]]:
        for stem in self._stems:
            pattern = re.compile(rf"{re.escape(stem)}\.rank(\d+)(?:-\d+)?{re.escape(self._suffix)}(?:\.gz)?")
            for name in self._names:
                match = pattern.fullmatch(name)
                if match and 0 < int(match[1]) < self._header.world:
                    yield stem, int(match[1]), self._path.with_name(name)

    def _is_ours(self, stem: str, header: RunHeader, away: float) -> bool:
        """Whether no other file of a rank 0 began nearer to it than ours, and ours near enough."""
        if away > _APART_S:
            return False
        pattern = re.compile(rf"{re.escape(stem)}(?:-\d+)?{re.escape(self._suffix)}(?:\.gz)?")
        for name in self._names:
            if name != self._path.name and pattern.fullmatch(name):
                try:
                    rival = _header(self._path.with_name(name))
                except RunFileError:
                    continue
                same = (rival.rank, rival.world) == (0, header.world)
                if same and _apart_s(rival, header) < away:
                    return False
        return True


def _header(path: Path) -> RunHeader:
    with read_records(path) as reader:
        return reader.header


def _apart_s(one: RunHeader, other: RunHeader) -> float:
    """How far two runs began from each other (seconds); 0 where one does not say when."""
    try:
        return abs(
            (dt.datetime.fromisoformat(one.time) - dt.datetime.fromisoformat(other.time)).total_seconds()
        )
    except (TypeError, ValueError):
        return 0.0
