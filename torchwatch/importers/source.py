"""A log as text: opened like a run file, gzipped or not, and told apart by what is in it."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

from torchwatch.errors import NotARunFile
from torchwatch.runfile.reader import is_gzip, open_run
from torchwatch.text import printable

LARGEST = 1 << 30
"""Bytes that are read of a log; a training log beyond that is none."""

_HEAD = 1 << 16
_FIELD = 1 << 20

Row = dict[str, Any]
"""One line of a log: column → number or text. What is empty or null is left out."""


class Source:
    """The file behind a log.

    Attributes:
        path: where it is.
        torn: lines so far that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0

    @cached_property
    def head(self) -> bytes:
        """The first 64 KiB, decompressed."""
        return self._read(_HEAD)

    @cached_property
    def content(self) -> bytes:
        """All of it, decompressed. Raises NotARunFile beyond 1 GiB."""
        content = self._read(LARGEST + 1)
        if len(content) > LARGEST:
            raise NotARunFile(f"{printable(self.path)} is not a run file, and too large for a training log")
        return content

    def _read(self, most: int) -> bytes:
        compressed = is_gzip(self.path)
        with open_run(self.path) as raw:
            if not compressed:
                return raw.read(most)
            with gzip.GzipFile(fileobj=raw) as file:
                return _what_is_whole(file, most)

    @cached_property
    def first_line(self) -> str:
        """The first line that is not blank, without its end; "" where there is no text."""
        return next((line.strip() for line in _lines(self.head)), "")

    @cached_property
    def lines(self) -> list[str]:
        """All lines that are not blank, whatever ends them."""
        return _lines(self.content)

    @cached_property
    def delimiter(self) -> str:
        """What separates the cells of a CSV file: a comma, a semicolon or a tab."""
        return max(",;\t", key=self.first_line.count)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """The first line as names of CSV columns, stripped; empty unless there are two or more, all words."""
        try:
            names = next(csv.reader([self.first_line], delimiter=self.delimiter), [])
        except csv.Error:
            return ()
        names = [name.strip() for name in names]
        words = [name for name in names if name]
        if len(names) < 2 or not words or self.first_line[:1] in "{[" or any(map(_is_number, words)):
            return ()
        if not all(name.isprintable() and "\ufffd" not in name for name in names):
            return ()
        return tuple(names)

    @cached_property
    def first_object(self) -> Row | None:
        """The first line as JSON object, None where it is none."""
        return _object(self.first_line) if self.first_line.startswith("{") else None

    @cached_property
    def document(self) -> dict[str, Any] | None:
        """The whole file as one JSON object, None where it is none."""
        return _object(_decoded(self.content))

    def csv_rows(self) -> list[Row]:
        """The rows of a CSV file by column. A row of another length than the header counts as torn."""
        csv.field_size_limit(_FIELD)
        rows: list[Row] = []
        try:
            for cells in list(csv.reader(self.lines, delimiter=self.delimiter))[1:]:
                if len(cells) == len(self.header):
                    rows.append(as_row(zip(self.header, cells, strict=True)))
                elif [c.strip() for c in cells] != list(self.header):
                    self.torn += 1
        except csv.Error as error:
            raise NotARunFile(f"{printable(self.path)} is not a run file, nor a CSV log: {error}") from None
        return [row for row in rows if not _repeats_header(row)]

    def json_rows(self) -> list[Row]:
        """The objects of a file of JSON lines; nested ones by names such as ``train/loss``."""
        rows = []
        for line in self.lines:
            found = _object(line.strip())
            if found is None:
                self.torn += 1
            else:
                rows.append(as_row(_flat(found)))
        return rows


def as_row(cells: Any) -> Row:
    """Pairs of name and value as row: numbers as float (also those written as text), blanks left out."""
    return {name: value for name, raw in cells if name and (value := _value(raw)) is not None}


def number(value: Any) -> float | None:
    """The value if it is a number."""
    return value if isinstance(value, float) else None


def _value(raw: Any) -> Any:
    if isinstance(raw, bool) or raw is None:
        return None
    if isinstance(raw, (int, float)):
        return _float(raw)
    if isinstance(raw, str):
        text = raw.strip()
        return (_float(text) if _is_number(text) else text) if text else None
    return None


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_000 as a number, a log does not mean one


def _object(line: str) -> Row | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _flat(found: Row, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, dict) and prefix.count("/") < 3:
            pairs += _flat(value, f"{prefix}{name}/")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs


def _repeats_header(row: Row) -> bool:
    """Whether the row is the header once more, as where runs were appended."""
    return bool(row) and all(name == value for name, value in row.items())


def _what_is_whole(file: gzip.GzipFile, most: int) -> bytes:
    """What can be decompressed: the end may be missing."""
    parts, size = [], 0
    try:
        while size < most and (part := file.read1(min(_HEAD, most - size))):
            parts.append(part)
            size += len(part)
    except (OSError, EOFError, zlib.error):
        pass
    return b"".join(parts)


def _lines(content: bytes) -> list[str]:
    return [line for line in re.split(r"\r\n|\n|\r", _decoded(content)) if line.strip()]


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    return content.decode("utf-8-sig", errors="replace")
