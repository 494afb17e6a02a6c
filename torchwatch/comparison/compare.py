"""Runs beside each other: settings that differ, where their curves part, what was wrong in which."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.comparison.parting import Parting, parting
from torchwatch.diagnosis import Diagnosis, diagnose
from torchwatch.run import Run, Series, read_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.records import Record

_LAST_SHARE = 20
_OWN = {"run_id", "name", "time", "pid", "rank", "kind", "schema"}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same in all runs: its name and its value in each (None: it has none)."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the runs.

    Attributes:
        name: how it is called in tables and plots.
        diagnosis: its diagnosis.
        loss: its training loss.
        last_loss: median of the last twentieth of it (at least one step).
        best: name, step and value of its lowest validation loss.
        samples_per_s: median throughput of its intervals.
    """

    name: str
    diagnosis: Diagnosis
    loss: Series
    last_loss: float | None
    best: tuple[str, int, float] | None
    samples_per_s: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs beside each other; partings are those of every other run from the first.

    ``checks`` maps a check to its worst severity in each run, None where it found nothing: only checks that
    do not say the same in all.
    """

    runs: tuple[Compared, ...]
    settings: tuple[Difference, ...]
    partings: tuple[Parting, ...]
    checks: Mapping[str, tuple[str | None, ...]]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "runs": [
                {
                    "name": run.name,
                    "last_loss": run.last_loss,
                    "best": None if run.best is None else list(run.best),
                    "samples_per_s": run.samples_per_s,
                    "diagnosis": run.diagnosis.as_json(),
                }
                for run in self.runs
            ],
            "settings": {d.name: list(d.values) for d in self.settings},
            "partings": [dataclasses.asdict(p) for p in self.partings],
            "checks": {slug: list(words) for slug, words in self.checks.items()},
        }


def compare(paths: Sequence[str | Path], on_record: Callable[[Record], object] | None = None) -> Comparison:
    """Compare run files; the first is what the others are held against.

    Args:
        paths: two or more.
        on_record: called with every record that was judged, to show how far it got.

    Raises:
        NotARunFile: one of them is not a run file.
        NewerSchema: one was written with a newer schema.
        ValueError: fewer than two paths.
    """
    if len(paths) < 2:
        raise ValueError("it takes two runs to compare")
    files = [read_run(path) for path in paths]
    names = _names([Path(p) for p in paths])
    runs = tuple(
        _compared(name, run, diagnose(run, on_record=on_record))
        for name, run in zip(names, files, strict=True)
    )
    return Comparison(
        runs=runs,
        settings=_differences([_settings(run) for run in files]),
        partings=tuple(parting(runs[0].loss, other.loss) for other in runs[1:]),
        checks=_checks(runs),
    )


def _names(paths: list[Path]) -> list[str]:
    """Their stems, or whole paths where two stems are the same."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _compared(name: str, run: Run, diagnosis: Diagnosis) -> Compared:
    loss = run.scalar("loss")
    return Compared(
        name=name,
        diagnosis=diagnosis,
        loss=loss,
        last_loss=last_level(loss),
        best=best_validation(run),
        samples_per_s=_middle(run.interval_series("samples_per_s").values),
    )


def last_level(series: Series) -> float | None:
    """Median of the last twentieth of the finite values."""
    finite = series.values[np.isfinite(series.values)]
    return _middle(finite[-max(len(finite) // _LAST_SHARE, 1) :])


def best_validation(run: Run) -> tuple[str, int, float] | None:
    """Name, step and value of the lowest validation loss, None where none was recorded."""
    name = next((n for n in run.names if n in ("val_loss", "valid_loss", "eval_loss", "test_loss")), None)
    if name is None:
        return None
    series = run.scalar(name)
    fine = np.isfinite(series.values)
    if not fine.any():
        return None
    at = int(np.where(fine, series.values, np.inf).argmin())
    return name, int(series.steps[at]), float(series.values[at])


def _middle(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def _settings(run: Run) -> dict[str, Any]:
    """Everything that somebody chose or that the machine gave, flat; identity and times left out."""
    header = {f.name: getattr(run.header, f.name) for f in dataclasses.fields(run.header)}
    flat: dict[str, Any] = {}
    _flatten({k: v for k, v in header.items() if k not in _OWN}, "", flat)
    layout = run.layout
    if layout is not None:
        flat["layers"] = len(layout.layers)
        for at, optimizer in enumerate(layout.optimizers):
            _flatten({"type": optimizer.type, "groups": optimizer.groups}, f"optimizers.{at}.", flat)
    sizes = run.scalar("samples").values
    if len(sizes):
        flat["samples per step"] = float(np.median(sizes))
    return flat


def _flatten(value: Any, prefix: str, into: dict[str, Any]) -> None:
    entries: Any = ()
    if isinstance(value, Mapping):
        entries = value.items()
    elif isinstance(value, (list, tuple)):
        entries = enumerate(value)
    if not entries:
        if not isinstance(value, (Mapping, list, tuple)):
            into[prefix.rstrip(".")] = value
        return
    for key, inner in entries:
        _flatten(inner, f"{prefix}{key}.", into)


def _differences(settings: list[dict[str, Any]]) -> tuple[Difference, ...]:
    found = []
    for name in sorted({name for each in settings for name in each}):
        values = [each.get(name, _MISSING) for each in settings]
        if any(value != values[0] for value in values[1:]):
            found.append(Difference(name, tuple(None if v is _MISSING else v for v in values)))
    return tuple(found)


def _checks(runs: tuple[Compared, ...]) -> dict[str, tuple[str | None, ...]]:
    worst: list[dict[str, str]] = []
    for run in runs:
        found: dict[str, str] = {}
        for issue in run.diagnosis.issues:  # worst first
            found.setdefault(issue.check, issue.severity)
        worst.append(found)
    table = {slug: tuple(each.get(slug) for each in worst) for slug in sorted({s for e in worst for s in e})}
    return {slug: words for slug, words in table.items() if len(set(words)) > 1}
