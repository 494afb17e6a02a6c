"""The door: a run file, or a log that becomes one while it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

from torchwatch.errors import ConfigError, NewerSchema, NotARunFile
from torchwatch.importers import (
    detectron2,
    huggingface,
    keras,
    lightning,
    mae,
    nanogpt,
    table,
    tensorboard,
    ultralytics,
)
from torchwatch.importers.compose import header_of, records_of
from torchwatch.importers.log import Log
from torchwatch.importers.source import Source
from torchwatch.records import End, Record, RunHeader
from torchwatch.runfile import RecordReader, read_records
from torchwatch.text import printable

FORMATS: tuple[ModuleType, ...] = (
    tensorboard, huggingface, detectron2, mae, ultralytics, keras, lightning, nanogpt, table,
)  # fmt: skip
"""What can be imported; the first that recognises a file reads it, so the most particular come first."""


class ImportedReader(Iterator[Record]):
    """The records that a log amounts to, the header first; read like a :class:`RecordReader`.

    Attributes:
        path: the log.
        format: what wrote it, in words.
        header: the first record.
        torn_lines: lines of the log that could not be read.
        unknown_lines: 0.
        end: the end record once it has been read.
    """

    def __init__(self, path: Path, log: Log, header: RunHeader, torn_lines: int) -> None:
        self.path = path
        self.format = log.format
        self.header = header
        self.torn_lines = torn_lines
        self.unknown_lines = 0
        self.end: End | None = None
        self._records = self._read(log)

    def __next__(self) -> Record:
        return next(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open: the log was read as a whole."""

    def _read(self, log: Log) -> Iterator[Record]:
        yield self.header
        for record in records_of(log):
            if isinstance(record, End):
                self.end = record
            yield record


def open_run(path: str | Path, columns: Mapping[str, str] | None = None) -> RecordReader | ImportedReader:
    """The records of a run file or of another tool's log, told apart by their content.

    Args:
        path: the file, gzipped or not.
        columns: what is in which column of a log (``{"loss": "train_loss", "step": "iteration"}``); a run
            file has none.

    Raises:
        NotARunFile: missing, a directory, empty, or neither a run file nor a log that can be read.
        NewerSchema: a run file with a newer schema.
        ConfigError: ``columns`` for a run file, or with a column that is not there.
        MissingExtra: the format needs a package that is not installed.
    """
    path = Path(path)
    try:
        reader = read_records(path)
    except NewerSchema:
        raise
    except NotARunFile as error:
        imported = _import(path, columns)
        if imported is None:
            raise NotARunFile(f"{error}, or a training log that `torchwatch diagnose --help` names") from None
        return imported
    if columns:
        reader.close()
        raise ConfigError(f"{printable(path)} is a run file and has no columns to name: leave --columns out")
    return reader


def _import(path: Path, columns: Mapping[str, str] | None) -> ImportedReader | None:
    """The log as records; None where it is in no known format. Missing and empty files raise as they did."""
    source = Source(path)
    if not source.head.strip():
        return None
    found = next((f for f in FORMATS if f.recognises(source)), None)
    if found is None:
        return None
    log: Log = found.read(source, columns)
    if not any(p.loss is not None for p in log.points):
        raise NotARunFile(
            f"{printable(path)} is not a run file, and as a log ({log.format}) it has no training loss"
        )
    return ImportedReader(path, log, header_of(log, path, source.content), source.torn)
