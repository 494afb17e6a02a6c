"""Non-finite numbers of a line: collected while it is written, put back when it is read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.codec.columns import Column, is_bad

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Nonfinite:
    """The non-finite numbers of one line, collected while it is written."""

    __slots__ = ("_columns", "_words")

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._columns: list[tuple[str, Column]] = []

    def number(self, value: float, path: str) -> float | None:
        """The number, or None when it is not finite (then it is noted)."""
        if math.isfinite(value):
            return value
        self._words[path] = _word(value)
        return None

    def column(self, values: npt.NDArray[Any], path: str) -> Column:
        """The array as a float32 column, whose entries :meth:`words` will look through."""
        with np.errstate(over="ignore", invalid="ignore"):
            column = np.ascontiguousarray(values, np.float32)
        self._columns.append((path, column))
        return column

    def series(self, values: npt.NDArray[np.float64], path: str) -> npt.NDArray[np.float64]:
        """The array for the line, each entry measured; one word for all where they are of one kind."""
        finite = np.isfinite(values)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            words = [_word(v) for v in values[bad].tolist()]
            if len(set(words)) == 1:
                self._words[path] = words[0]
            else:
                self._words.update((f"{path}.{i}", w) for i, w in zip(bad.tolist(), words, strict=True))
        return np.ascontiguousarray(values)

    def words(self) -> dict[str, str]:
        """The finished map. All columns are looked at together first: usually all is well."""
        if self._columns and is_bad(np.concatenate([c for _, c in self._columns])).any():
            for path, column in self._columns:
                self._look_through(column, path)
        return self._words

    def _look_through(self, column: Column, path: str) -> None:
        bad = np.flatnonzero(is_bad(column))
        words = [_word(v) for v in column[bad].tolist()]
        if len(words) == len(column) and len(set(words)) == 1:
            self._words[path] = words[0]
        else:
            self._words.update((f"{path}.{i}", word) for i, word in zip(bad.tolist(), words, strict=True))


def _word(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def escaped(key: str) -> str:
    """The key as one part of a path."""
    return key.replace("~", "~0").replace(".", "~1") if "." in key or "~" in key else key


def restore(body: Any, words: Any) -> None:
    """Put the non-finite numbers back into a line's body; a path that leads nowhere is passed over.

    Raises:
        ValueError: ``words`` is not such a map.
    """
    if not isinstance(words, dict):
        raise ValueError("`nonfinite` is not a map")  # noqa: TRY004 - a line is unreadable for one reason only
    for path, word in words.items():
        number = _WORDS.get(word) if isinstance(word, str) else None
        if number is not None:
            _restore(body, path.split("."), number)


def _restore(body: Any, path: list[str], number: float) -> None:
    *way, last = path
    for part in way:
        key = _place(body, part)
        if key is None:
            return
        body = body[key]
    key = _place(body, last)
    if key is None:
        return
    if body[key] is None:
        body[key] = number
    elif isinstance(body[key], list):
        body[key] = [number if v is None else v for v in body[key]]


def _place(body: Any, part: str) -> Any:
    """Where the part of a path leads in a map or list; None when it leads nowhere."""
    if isinstance(body, dict):
        key = part.replace("~1", ".").replace("~0", "~")
        return key if key in body else None
    if isinstance(body, list) and part.isascii() and part.isdecimal() and len(part) < 10:
        return int(part) if int(part) < len(body) else None
    return None
