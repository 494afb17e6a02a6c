"""From a run file to a diagnosis."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torchwatch
from torchwatch.check import Severity, select, select_known
from torchwatch.diagnosis.replay import Replay
from torchwatch.diagnosis.result import Diagnosis, LayerHighlight
from torchwatch.diagnosis.sustainability import sustainability
from torchwatch.engine import COST, Engine
from torchwatch.errors import NotARunFile
from torchwatch.history.kinds import kinds_of
from torchwatch.importers import ImportedReader, open_run
from torchwatch.records import Alert, Layout, Record, RunHeader
from torchwatch.run import Run, rank_files, read_run
from torchwatch.runfile import RecordReader
from torchwatch.text import band


def diagnose(
    source: str | Path | Run | Iterable[Record],
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    ignore: Iterable[str] = (),
    on_record: Callable[[Record], object] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Run all checks over a run, as they ran live; of a distributed run, over one rank's file.

    With rank 0's file, the checks that compare ranks look at the files of all of them.

    Args:
        source: path of a run file or of another tool's log (:mod:`torchwatch.importers`), a
            :class:`~torchwatch.run.Run`, or records with the header first.
        limits: override those in the run's header, per check and limit.
        ignore: checks that are not run; given, they replace those in the header.
        on_record: called with every record once it was judged, to show how far it got.
        columns: what is in which column of a log: ``{"loss": "train_loss", "step": "iteration"}``.

    Raises:
        NotARunFile: the source is missing, empty or not a run.
        NewerSchema: the file was written with a newer schema.
        ConfigError: an unknown check or limit, or a column that is not there.
        MissingExtra: the log is in a format that needs a package which is not installed.
    """
    started = time.perf_counter()
    given = (dict(limits or {}), (ignore,) if isinstance(ignore, str) else tuple(ignore))
    records, name = _opened(source, columns)
    header = next(records, None)
    if not isinstance(header, RunHeader):
        raise NotARunFile("the first record is not the header of a run")
    replay = Replay(_engine(header, *given))
    replay.take(header)
    for record in records:
        replay.take(record)
        if on_record is not None:
            on_record(record)
    replay.finish()
    ranks = _ranks(source, name, header)
    if ranks is not None:
        replay.engine.compare(ranks)
    torn = records.torn_lines if isinstance(records, (RecordReader, ImportedReader)) else 0
    return _told(replay, header, name, torn, time.perf_counter() - started, overridden=any(given))


def _opened(source: Any, columns: Mapping[str, str] | None) -> tuple[Iterator[Record], str | None]:
    """The records of a source as a stream, and its path."""
    path = source if isinstance(source, (str, Path)) else getattr(source, "path", None)
    if path is None:
        return iter(source), None
    return open_run(path, columns), str(path)


def _ranks(source: Any, path: str | None, header: RunHeader) -> Run | None:
    """The files of all ranks as one run; None where there are not several, or only one was asked for."""
    if header.world < 2 or header.rank != 0 or path is None:
        return None
    run = source if isinstance(source, Run) else read_run(path)
    return run if len(run.ranks) > 1 else None


def _engine(header: RunHeader, limits: dict[str, Mapping[str, Any]], ignore: tuple[str, ...]) -> Engine:
    if not limits and not ignore:
        return Engine.for_header(header)
    select(limits, ignore)
    recorded = {slug: dict(values) for slug, values in header.limits.items()}
    for slug, values in limits.items():
        recorded[slug] = recorded.get(slug, {}) | dict(values)
    selection, skipped = select_known(recorded, ignore or header.ignore)
    engine = Engine(selection)
    engine.skipped = skipped
    return engine


def _told(
    replay: Replay, header: RunHeader, path: str | None, torn: int, wall_s: float, *, overridden: bool
) -> Diagnosis:
    engine, end = replay.engine, replay.end
    history = engine.history
    complete = end is not None and end.complete and not torn
    comparable = (
        complete and not overridden and not engine.skipped and header.torchwatch == torchwatch.__version__
    )
    issues = tuple(engine.issues)
    score = engine.health_score() if history.steps_seen else None
    return Diagnosis(
        id=header.run_id,
        run=path if path is not None else header.name,
        created_at=header.time,
        model=header.model,
        arch_type=None if history.layout is None else "+".join(sorted(kinds_of(history.layout))),
        status="unfinished" if end is None else end.status,
        complete=complete,
        steps=history.steps_seen,
        epochs=replay.epochs,
        duration_s=history.time_s if end is None else max(history.time_s, end.time_s),
        health_score=score,
        band=band(score),
        issues=issues,
        incidents=tuple(engine.incidents),
        not_run=engine.not_run(),
        layers=highlights(issues, history.layout),
        sustainability=sustainability(history, end, issues, replay.epochs),
        epoch_trend=tuple(history.epochs),
        recorded_alerts=replay.recorded,
        replayed_alerts=replay.replayed,
        replay_matches=replay.difference is None if comparable else None,
        replay_difference=replay.difference if comparable else None,
        unknown_limits=engine.skipped,
        torn_lines=torn,
        rank=header.rank,
        world=header.world,
        rank_files=1 if path is None else 1 + len(rank_files(Path(path), header).paths),
        wall_s=wall_s,
        steps_per_s=history.steps_seen / wall_s if wall_s > 0 else 0.0,
    )


def highlights(issues: Iterable[Alert], layout: Layout | None) -> tuple[LayerHighlight, ...]:
    """The layers that have issues, worst first; their types from the layout."""
    types = {layer.name: layer.type for layer in layout.layers} if layout is not None else {}
    score: Counter[str] = Counter()
    slugs: dict[str, list[str]] = {}
    for issue in issues:
        if issue.layer is not None:
            score[issue.layer] += COST[Severity[issue.severity.upper()]]
            slugs.setdefault(issue.layer, []).append(issue.check)
    worst = sorted(score, key=lambda name: (-score[name], name))
    return tuple(LayerHighlight(n, types.get(n, ""), score[n], tuple(slugs[n])) for n in worst)
