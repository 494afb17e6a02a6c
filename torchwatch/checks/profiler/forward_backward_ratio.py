"""The forward pass is short against the backward pass.

What it detects
    Forward over backward time is below 0.15, in the last profiler window and by the clock of sampled steps
    where there is one. One half is usual.

Why it matters
    So little is done forward only when the backward pass does something else besides: it runs the forward
    pass again, several times, or a backward formula falls back to a slow path.

What to do
    Look at the longest operators of the window (``top``) for a backward kernel that stands out: an index or
    scatter with repeated indices, a deterministic algorithm that was asked for, a custom function.

When it is fine
    Models whose forward pass is a lookup (large embeddings with dense gradients), implicit layers and
    differential equations that solve a second problem in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.profiler._window import latest, passes
from torchwatch.text import duration, percent, printable

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When the forward pass is too short.

    Attributes:
        ratio: forward over backward time below which it is (ratio).
    """

    ratio: float = 0.15


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole model."""
    known = passes(history)
    if not known:
        return NotReady("the window has no forward and backward times")
    ratio = max(p.forward / p.backward for p in known)
    if ratio >= limits.ratio:
        return []
    window = latest(history)
    return [
        Finding(
            title=f"The forward pass takes {percent(ratio)} of the backward pass's time",
            since_step=window.step,
            detail=f"One half is usual.{_longest(window.data.get('top'))}",
            metric="profile.forward_s",
            value=ratio,
            threshold=limits.ratio,
        )
    ]


def _longest(top: object) -> str:
    """The longest operator, in words."""
    row = top[0] if isinstance(top, list) and top else None
    if not isinstance(row, dict) or not isinstance(row.get("s"), (int, float)):
        return ""
    return f" The longest operator is {printable(row.get('name'), 80)} ({duration(row['s'])})."


CHECK = Check(
    severity=Severity.INFO,
    category=Category.PROFILER,
    cause=Cause.OTHER,
    when=frozenset({On.PROFILE}),
    reads=("profile",),
    uses=("forward_share", "backward_share"),
    limits=Limits(),
    find=find,
    fix="Look for a backward kernel that stands out among the longest operators of the window.",
)
