"""What the host says while it is watched: warnings and errors of ``logging`` and ``warnings``.

No handler is installed: one on the root logger would silence ``logging.lastResort`` and turn the host's
``basicConfig`` into nothing. Instead the record factory is observed, which is asked for every record that
some logger lets pass, and ``warnings.showwarning``, which is asked for every warning that is shown. Both are
put back when the last watcher leaves, if they are still ours.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

from torchwatch.records import Log

MOST = 1000
"""Log records per run."""

MOST_ALIKE = 20
"""Log records per run of one level, source and wording (before its arguments are filled in)."""

_LONGEST = 2000

Observer = Callable[[str, str, str, str], None]


class _Observed:
    """The two functions of the standard library, observed by any number of watchers."""

    def __init__(self) -> None:
        self._observers: list[Observer] = []
        self._factory: Callable[..., logging.LogRecord] | None = None
        self._show: Callable[..., None] | None = None
        self._our_factory: Callable[..., logging.LogRecord] | None = None
        self._our_show: Callable[..., None] | None = None

    def join(self, observer: Observer) -> None:
        self._observers.append(observer)
        if logging.getLogRecordFactory() is not self._our_factory:
            self._factory = logging.getLogRecordFactory()
            self._our_factory = self._make_factory(self._factory)
            logging.setLogRecordFactory(self._our_factory)
        if warnings.showwarning is not self._our_show:
            self._show = warnings.showwarning
            self._our_show = self._make_show(self._show)
            warnings.showwarning = self._our_show

    def leave(self, observer: Observer) -> None:
        if observer in self._observers:
            self._observers.remove(observer)
        if self._observers:
            return
        if self._factory is not None and logging.getLogRecordFactory() is self._our_factory:
            logging.setLogRecordFactory(self._factory)
        if self._show is not None and warnings.showwarning is self._our_show:
            warnings.showwarning = self._show
        self._factory = self._show = self._our_factory = self._our_show = None

    def _tell(self, level: str, source: str, wording: str, message: str) -> None:
        for observer in tuple(self._observers):
            observer(level, source, wording, message)

    def _make_factory(self, original: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = original(*args, **kwargs)
            if record.levelno >= logging.WARNING and self._observers:
                self._tell(record.levelname, record.name, str(record.msg)[:_LONGEST], _message(record))
            return record

        return factory

    def _make_show(self, original: Callable[..., None]) -> Callable[..., None]:
        def showwarning(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any
        ) -> None:
            if self._observers:
                said = f"{category.__name__}: {message}"[:_LONGEST]
                self._tell("WARNING", f"{filename}:{lineno}", said, said)
            original(message, category, filename, lineno, *rest)

        return showwarning


def _message(record: logging.LogRecord) -> str:
    """The message with its arguments, unless printing one of them might wait for a device."""
    args = record.args.values() if isinstance(record.args, dict) else record.args or ()
    if any(not isinstance(a, (str, int, float, bool, type(None), BaseException)) for a in args):
        return str(record.msg)[:_LONGEST]
    return record.getMessage()[:_LONGEST]


_OBSERVED = _Observed()


class LogWatch:
    """Turns what the host says into records.

    Args:
        put: takes the records, from any thread; must not block. Step and time are filled in by the recorder.
        failed: told of a failure of ours.
    """

    def __init__(self, put: Callable[[Log], None], failed: Callable[[Exception], None]) -> None:
        self._put, self._failed = put, failed
        self._alike: Counter[tuple[str, str, str]] = Counter()
        self._count = 0
        self._pid = os.getpid()

    def enter(self) -> None:
        """Start listening."""
        _OBSERVED.join(self.heard)

    def leave(self) -> None:
        """Stop listening."""
        _OBSERVED.leave(self.heard)

    def heard(self, level: str, source: str, wording: str, message: str) -> None:
        """Something was said; ``wording`` is the message before its arguments are filled in."""
        try:
            if os.getpid() != self._pid:  # a forked worker of the host's
                return
            key = (level, source, wording)
            if self._count >= MOST or (self._alike[key] >= MOST_ALIKE and len(self._alike) < MOST):
                return
            self._alike[key] += 1
            self._count += 1
            self._put(Log(level=level, source=source, message=message))
        except Exception as error:  # noqa: BLE001 - a message of the host's must reach its own handlers
            self._failed(error)

    @staticmethod
    def crash(error: BaseException) -> Log:
        """The exception that ended the body; CRITICAL when memory ran out."""
        name = type(error).__name__
        full = isinstance(error, MemoryError) or "OutOfMemory" in name
        return Log(level="CRITICAL" if full else "ERROR", source=name, message=_printed(error))


def _printed(error: BaseException) -> str:
    try:
        return str(error)[:_LONGEST]
    except Exception:  # noqa: BLE001 - the host's own __str__
        return "(an exception that cannot be printed)"
