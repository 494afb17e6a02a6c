"""Runs of several ranks, written to files and read as one, for the checks that compare ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers_checks import only
from tests.run.ranks import header, write
from torchwatch.engine import Engine
from torchwatch.records import Alert, Record
from torchwatch.run import read_run


def compare(
    slug: str,
    folder: Path,
    ranks: Sequence[Sequence[Record]],
    limits: Mapping[str, Any] | None = None,
    **fields: Any,
) -> tuple[Engine, list[Alert]]:
    """What one check says of the ranks' records; ``fields`` are the headers'."""
    for number, body in enumerate(ranks):
        name = "run.jsonl" if number == 0 else f"run.rank{number}.jsonl"
        write(folder / name, header(number, len(ranks), **fields), body)
    run = read_run(folder / "run.jsonl")
    assert len(run.ranks) == len(ranks)
    engine = Engine(only(slug, limits))
    for record in ranks[0]:
        engine.feed(record)
    engine.finish()
    alerts = engine.compare(run)
    assert not engine.failed, engine.failed
    return engine, alerts
