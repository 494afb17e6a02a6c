"""The runs of a folder in the order in which they began: is the project getting anywhere?"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchwatch.comparison.compare import best_validation, last_level
from torchwatch.diagnosis import diagnose
from torchwatch.errors import NotARunFile, TorchwatchError
from torchwatch.run import read_run
from torchwatch.statistics import mann_kendall

if TYPE_CHECKING:
    from collections.abc import Callable

_RANK = re.compile(r"\.rank\d+$")
_FEWEST = 4
_CERTAIN = 0.05


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a folder; None: not recorded.

    ``issues`` counts checks per severity at their worst. A run without an end record is judged anew.
    """

    path: str
    name: str
    began: str
    model: str
    status: str
    steps: int
    duration_s: float
    last_loss: float | None
    best_name: str | None
    best: float | None
    health_score: int | None
    issues: dict[str, int]
    energy_wh: float | None


@dataclass(frozen=True, slots=True)
class Project:
    """The runs of a folder, oldest first, and what they say together.

    ``sentences`` tell trends that are more than chance (Mann–Kendall, p < 0.05, at least four runs);
    ``unreadable`` are files that look like runs and are none: path and reason.
    """

    entries: tuple[Entry, ...]
    sentences: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "runs": [dataclasses.asdict(e) for e in self.entries],
            "sentences": list(self.sentences),
            "unreadable": [list(u) for u in self.unreadable],
        }


def project_trend(folder: str | Path, on_file: Callable[[Path], object] | None = None) -> Project:
    """Read every run file in a folder and below it; of a distributed run the file of rank 0.

    Args:
        folder: where the runs are.
        on_file: called with every file before it is read.

    Raises:
        NotARunFile: it is no folder, or there is no run in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotARunFile(f"{root} is no folder: `torchwatch trend` wants the folder that holds the runs")
    entries, unreadable = [], []
    for path in sorted(root.rglob("*.jsonl")):
        if _RANK.search(path.stem):
            continue
        if on_file is not None:
            on_file(path)
        try:
            entries.append(_entry(path, root))
        except TorchwatchError as error:
            unreadable.append((str(path), str(error)))
    if not entries:
        raise NotARunFile(f"{root} holds no run file (*.jsonl)")
    entries.sort(key=lambda e: (e.began, e.path))
    return Project(tuple(entries), tuple(_sentences(entries)), tuple(unreadable))


def _entry(path: Path, root: Path) -> Entry:
    run = read_run(path)
    end, header = run.end, run.header
    best = best_validation(run)
    if end is None:
        found = diagnose(run)
        status, score, issues = found.status, found.health_score, found.severities
        steps, duration_s, energy = found.steps, found.duration_s, found.sustainability.energy_wh
    else:
        status, score, issues = end.status, end.health_score, dict(end.issues)
        steps, duration_s = end.steps, end.time_s
        energy = None if end.energy_kwh is None else end.energy_kwh * 1000
    return Entry(
        path=str(path),
        name=str(path.relative_to(root).with_suffix("")),
        began=header.time,
        model=header.model,
        status=status,
        steps=steps,
        duration_s=duration_s,
        last_loss=last_level(run.scalar("loss")),
        best_name=None if best is None else best[0],
        best=None if best is None else best[2],
        health_score=score,
        issues=issues,
        energy_wh=energy,
    )


def _sentences(entries: list[Entry]) -> list[str]:
    """What rises or falls from run to run by more than chance."""
    said = []
    for what, values in (
        ("The best validation loss", [e.best for e in entries]),
        ("The last training loss", [e.last_loss for e in entries]),
        ("The health score", [None if e.health_score is None else float(e.health_score) for e in entries]),
    ):
        known = [v for v in values if v is not None]
        if len(known) < _FEWEST:
            continue
        trend = mann_kendall(known)
        if trend.p < _CERTAIN:
            way = "rose" if trend.s > 0 else "fell"
            said.append(f"{what} {way} over {len(known)} runs, from {known[0]:.4g} to {known[-1]:.4g}.")
    return said
