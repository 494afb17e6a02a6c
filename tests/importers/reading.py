"""What the tests of importers share: a log written by hand, read as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torchwatch.importers import ImportedReader, open_run
from torchwatch.records import Eval, Note, Record, Step

R = TypeVar("R", bound=Record)


def opened(
    path: Path, content: str | bytes, columns: Mapping[str, str] | None = None
) -> tuple[ImportedReader, list[Record]]:
    """The reader of a log and all its records."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reader = open_run(path, columns)
    assert isinstance(reader, ImportedReader)
    return reader, list(reader)


def of_kind(records: Iterable[Record], kind: type[R]) -> list[R]:
    return [r for r in records if isinstance(r, kind)]


def losses(records: Iterable[Record]) -> dict[int, float | None]:
    """Loss by step."""
    return {r.step: r.loss for r in of_kind(records, Step)}


def evals(records: Iterable[Record], name: str) -> dict[int, float | None]:
    """A metric of the evaluations by step."""
    return {r.step: r.metrics[name] for r in of_kind(records, Eval) if name in r.metrics}


def notes(records: Iterable[Record]) -> str:
    return " ".join(r.message for r in of_kind(records, Note))


def trainer_state(rows: Iterable[Mapping[str, Any]], **fields: Any) -> str:
    """A ``trainer_state.json`` as the Trainer writes it: NaN literally, two spaces."""
    state = {"best_metric": None, "epoch": 1.0, "global_step": 0, "log_history": list(rows), "max_steps": 100}
    return json.dumps(state | fields, indent=2)


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
