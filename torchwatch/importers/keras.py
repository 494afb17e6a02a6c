"""Keras ``CSVLogger``: one row per epoch, ``val_`` before the metrics of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from torchwatch.importers.log import Log
from torchwatch.importers.source import Source
from torchwatch.importers.table import log_of

NAME = "Keras history"


def recognises(source: Source) -> bool:
    """Whether the header has ``epoch`` first and ``loss``, and no step."""
    names = source.header
    return names[:1] == ("epoch",) and "loss" in names and "step" not in names


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log. Its epochs count from 0."""
    return log_of(source, NAME, source.csv_rows(), columns)
