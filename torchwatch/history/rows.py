"""A bounded list of records, and the series of their fields."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from torchwatch.history.scalars import Series

T = TypeVar("T")


class Rows(Generic[T]):
    """At most ``most`` items: the last ones, or with ``thin`` also the first and ever fewer old ones."""

    def __init__(self, most: int, *, thin: bool = True) -> None:
        self.items: list[T] = []
        self._most = most
        self._thin = thin

    def append(self, item: T) -> bool:
        """Add an item; whether others had to go.

        Over the limit every second of the older half goes, or without ``thin`` the oldest.
        """
        self.items.append(item)
        if len(self.items) <= self._most:
            return False
        if self._thin:
            del self.items[1 : self._most // 2 : 2]
        else:
            del self.items[0]
        return True


class Sums(Generic[T]):
    """Running sums over every record that came. Old points are thinned, and what they counted stays counted.

    Args:
        amounts: what is summed up of a record, by name; None counts as nothing.
        most: points that are kept.
    """

    def __init__(self, amounts: Mapping[str, Callable[[T], float | None]], most: int) -> None:
        self._amounts = amounts
        self._points = Rows[tuple[int, dict[str, float]]](most)
        self._now = dict.fromkeys(amounts, 0.0)

    def add(self, step: int, record: T) -> None:
        """Count a record that ends at a step."""
        for name, amount in self._amounts.items():
            value = amount(record)
            if value is not None and math.isfinite(value):
                self._now[name] += value
        self._points.append((step, dict(self._now)))

    def series(self, name: str) -> Series:
        """The sum so far at each step."""
        points = self._points.items
        return Series(
            np.array([step for step, _ in points], np.int64),
            np.array([sums[name] for _, sums in points], np.float64),
        )


class Fields(Generic[T]):
    """Numeric fields of kept records as growing arrays: a long series is not collected anew each time.

    Args:
        value: the field's value in a record.
        step: the step of a record.
    """

    def __init__(self, value: Callable[[T, str], object], step: Callable[[T], int]) -> None:
        self._value = value
        self._step = step
        self._known: dict[str, tuple[array[int], array[float]]] = {}

    def added(self, record: T, *, others_went: bool) -> None:
        """A record came; where others went, everything is collected again."""
        if others_went:
            self._known.clear()
        for name in self._known:
            self._append(name, record)

    def series(self, name: str, records: Sequence[T]) -> Series:
        """The field in all records in which it is a number."""
        if name not in self._known:
            self._known[name] = (array("q"), array("d"))
            for record in records:
                self._append(name, record)
        steps, values = self._known[name]
        return Series(np.array(steps, np.int64), np.array(values, np.float64))

    def _append(self, name: str, record: T) -> None:
        value = self._value(record, name)
        if isinstance(value, (int, float)):
            steps, values = self._known[name]
            steps.append(self._step(record))
            values.append(float(value))
