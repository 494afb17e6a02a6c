"""A bounded list of records."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Rows(Generic[T]):
    """At most ``most`` items: the last ones, or with ``thin`` also the first and ever fewer old ones."""

    def __init__(self, most: int, *, thin: bool = True) -> None:
        self.items: list[T] = []
        self._most = most
        self._thin = thin

    def append(self, item: T) -> None:
        """Add an item; over the limit every second of the older half goes, or without ``thin`` the oldest."""
        self.items.append(item)
        if len(self.items) > self._most:
            if self._thin:
                del self.items[1 : self._most // 2 : 2]
            else:
                del self.items[0]
