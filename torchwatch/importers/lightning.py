"""Lightning ``metrics.csv``: sparse rows, one step over several of them, ``_step`` and ``_epoch`` twins."""

from __future__ import annotations

from collections.abc import Mapping

from torchwatch.importers.log import Log
from torchwatch.importers.source import Source
from torchwatch.importers.table import log_of

NAME = "Lightning metrics"


def recognises(source: Source) -> bool:
    """Whether the header has ``epoch`` and ``step`` as CSVLogger writes them, beside at least one metric."""
    return {"epoch", "step"} <= set(source.header) and len(source.header) > 2


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log. Its steps count from 0, and are kept as they are."""
    return log_of(source, NAME, source.csv_rows(), columns)
