"""The log of build-nanogpt and llm.c: lines of three words, ``step stream value``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torchwatch.errors import ConfigError
from torchwatch.importers.log import Log, Points
from torchwatch.importers.source import Source

NAME = "nanoGPT log"

_LINE = re.compile(r"\s*(\d{1,15}) (train|val|hella|eval) (\S+)\s*", re.ASCII)
_LLMC = re.compile(r"\s*s:(\d{1,15}) (trl|tel|eval):(\S+)(?: lr:(\S+))?(?: norm:(\S+))?\s*", re.ASCII)
_STREAM = {"trl": "train", "tel": "val", "eval": "hella"}


def recognises(source: Source) -> bool:
    """Whether the first line is ``0 val 10.9`` or llm.c's ``s:0 tel:10.9``."""
    return bool(_LINE.fullmatch(source.first_line) or _LLMC.fullmatch(source.first_line))


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log: ``train`` is the loss of one step, ``val`` an evaluation, ``hella`` an accuracy."""
    if columns:
        raise ConfigError("--columns is for tables; this log has no columns")
    points = Points()
    for line in source.lines:
        own, other = _LINE.fullmatch(line), _LLMC.fullmatch(line)
        match = own or other
        value = _number(match[3]) if match else None
        if match is None or value is None:
            source.torn += 1
            continue
        step, stream = int(match[1]), _STREAM.get(match[2], match[2]) if other else match[2]
        if stream == "train":
            point = points.train(step, value)
            if other:
                rate = _number(other[4])
                point.lr, point.grad_norm = None if rate is None else [rate], _number(other[5])
        else:
            points.evaluate(step, {"val_loss" if stream == "val" else f"val_{stream}": value})
    return Log(NAME, "step", points.sorted(), points.notes())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
