"""Our failures never reach the host; theirs always pass.

Only ``Exception`` is caught: KeyboardInterrupt, SystemExit and GeneratorExit belong to the host.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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

    @contextmanager
    def __call__(self, collector: str) -> Iterator[None]:
        """Run the body; an ``Exception`` in it is counted and swallowed."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the whole point: a guest never breaks its host
            self.failed(collector, error)

    def failed(self, collector: str, error: Exception) -> None:
        """Count a failure; at the allowed number the collector is off and that is said once."""
        count = self._failures[collector] = self._failures.get(collector, 0) + 1
        if count < self._allowed or collector in self.off:
            return
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" at {where[0].name}:{where[0].lineno}" if where else ""
        self.off[collector] = f"{type(error).__name__}: {error}{place}"
        self._say(collector, f"{collector} switched off after {count} failures: {self.off[collector]}")
