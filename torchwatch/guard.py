"""Our failures never reach the host; theirs always pass.

Only ``Exception`` is caught: KeyboardInterrupt, SystemExit and GeneratorExit belong to the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable


class Guard:
    """Keeps the failures of named collectors away from the host and switches a failing one off.

    Args:
        say: called once with (collector, sentence) when a collector is switched off.
        allowed: failures after which a collector is switched off (default 2).
    """

    def __init__(self, say: Callable[[str, str], None], allowed: int = 2) -> None:
        self._say = say
        self._allowed = allowed
        self._failures: dict[str, int] = {}
        self.off: dict[str, str] = {}

    def is_off(self, collector: str) -> bool:
        """Whether the collector failed too often and is not called any more."""
        return collector in self.off

    def __call__(self, collector: str) -> _Guarded:
        """A context whose ``Exception`` is counted and swallowed."""
        return _Guarded(self, collector)

    def failed(self, collector: str, error: Exception) -> None:
        """Count a failure; at the allowed number the collector is off and that is said once."""
        count = self._failures[collector] = self._failures.get(collector, 0) + 1
        if count < self._allowed or collector in self.off:
            return
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" at {where[0].name}:{where[0].lineno}" if where else ""
        self.off[collector] = f"{type(error).__name__}: {error}{place}"
        self._say(collector, f"{collector} switched off after {count} failures: {self.off[collector]}")


class _Guarded:
    """A class rather than a generator: a step enters several of these."""

    __slots__ = ("_collector", "_guard")

    def __init__(self, guard: Guard, collector: str) -> None:
        self._guard, self._collector = guard, collector

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, Exception):
            self._guard.failed(self._collector, error)
            return True
        return False
