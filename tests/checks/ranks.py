"""Runs of several ranks, written to files and read as one, for the checks that compare ranks."""

from __future__ import annotations

import os
import subprocess
import sys
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


def train_on_two_ranks(how: str, folder: Path) -> Path:
    """Two processes of :mod:`tests.checks.rank_training`; the path of rank 0's file."""
    root = Path(__file__).resolve().parent.parent.parent
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.checks.rank_training", how, str(rank), str(folder)],
            cwd=root,
            env={**environment, "PYTHONPATH": str(root)},
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0]
    return folder / "run.jsonl"
