"""detectron2 ``metrics.json``: JSON lines, a total and its parts, evaluations by task (``bbox/AP``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torchwatch.importers.columns import count_numbers, guess
from torchwatch.importers.log import Log
from torchwatch.importers.source import Source
from torchwatch.importers.table import log_of

NAME = "detectron2 metrics"

_TASKS = ("bbox", "segm", "keypoints", "sem_seg", "panoptic_seg", "box_proposals")
_NOT_METRICS = {"time", "data_time", "eta_seconds", "rank_data_time"}


def recognises(source: Source) -> bool:
    """Whether the first line is an object with ``iteration``, and ``total_loss`` or a speed."""
    names = set(source.first_object or ())
    return "iteration" in names and bool(names & {"total_loss", "data_time", "eta_seconds"})


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log. Its iterations count from 0; ``time`` is seconds per iteration and no clock."""
    rows = [{n: v for n, v in r.items() if n not in _NOT_METRICS} for r in source.json_rows()]
    roles = guess(count_numbers(rows))
    tasks = {n: f"val_{n}" for r in rows for n in r if n.partition("/")[0] in _TASKS}
    roles = replace(roles, evals={**roles.evals, **tasks})
    return log_of(source, NAME, rows, columns, roles)
