"""The program logged errors, or ended with an exception.

What it detects
    Messages of level ERROR or CRITICAL from ``logging`` while the run was watched, and the exception that
    ended the body of the ``with``. It is critical where memory ran out. The host's handlers are not touched.

Why it matters
    A line in a log of thousands is easily missed, and a caught exception that is only logged may mean batches
    that were skipped or files that were not saved.

What to do
    Read the first message: the later ones are often its consequences. Where memory ran out, see what the
    memory did before (`device-memory-growth`, `memory-growth`), then use a smaller batch with accumulation,
    mixed precision or activation checkpointing.

When it is fine
    Libraries that log an error and go on as planned. Exceptions that steer a program, such as a pruned trial
    of a search, are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import printable

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Log

_LEVELS = frozenset({"ERROR", "CRITICAL", "FATAL"})
_MEMORY = ("out of memory", "outofmemory", "can't allocate memory", "cannot allocate memory", "memoryerror")
_STEERING = ("trialpruned", "earlystop", "early_stop", "stoptraining")
_SHOWN = 120


@dataclass(frozen=True)
class Limits:
    """When logged errors are reported.

    Attributes:
        errors: so many messages (count).
    """

    errors: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding: how many there were, and the first."""
    logs = history.logs
    if not logs and not history.header.config.get("logs"):
        return NotReady("messages are not recorded in this run")
    errors = [m for m in logs if m.level in _LEVELS and not _steers(m)]
    if len(errors) < max(1, limits.errors):
        return []
    full = [m for m in errors if _is_memory(m)]
    first = full[0] if full else errors[0]
    count = len(errors)
    words = "An error was logged" if count == 1 else f"{count} errors were logged, the first"
    return [
        Finding(
            title="Memory ran out" if full else f"{words}: {_shown(first)}",
            since_step=first.step,
            detail=f"{printable(first.source, 80)} at step {first.step}: {printable(first.message)}"
            + ("" if count == 1 else f" ({count} messages of this level or above in all)"),
            severity=Severity.CRITICAL if full else Severity.WARNING,
            metric="log",
            value=float(count),
            threshold=float(limits.errors),
        )
    ]


def _is_memory(message: Log) -> bool:
    said = f"{message.source} {message.message}".lower()
    return any(word in said for word in _MEMORY)


def _steers(message: Log) -> bool:
    return any(word in message.source.lower() for word in _STEERING)


def _shown(message: Log) -> str:
    lines = message.message.strip().splitlines()
    return printable(lines[0] if lines else message.source, _SHOWN)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOGS,
    cause=Cause.OTHER,
    when=frozenset({On.LOG, On.END}),
    reads=(),
    uses=("log",),
    limits=Limits(),
    find=find,
    fix="Read the first message; the later ones are often its consequences.",
)
