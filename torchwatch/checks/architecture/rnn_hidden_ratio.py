"""A recurrent layer's state is far larger than what it reads.

What it detects
    A recurrent layer whose hidden size is at least 16 times its input size (``ratio``).

Why it matters
    Recurrent weights grow with the square of the hidden size. Fed by so few numbers, nearly all of them work
    on the layer's own past: such a layer memorises short training sets and is slow for what it learns.

What to do
    A smaller hidden size; or give it more per step: features, an embedding, several time steps at once.

When it is fine
    A single series with long memory: forecasters read one number per step and still need some dozens of
    hidden units. It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import recurrents

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a state is too large. A guard at 0 is off.

    Attributes:
        ratio: smallest ratio of hidden size to input size (ratio).
        hidden: guard: a smaller state is left alone (numbers).
    """

    ratio: float = 16.0
    hidden: int = 0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per layer."""
    reason = unfit(history, "rnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    return [
        Finding(
            title=f"{r.hidden} hidden numbers for an input of {r.inputs}",
            since_step=layout.step,
            detail=f"{r.layer.parameters:,} parameters in this {r.layer.type}.",
            layer=r.layer.name,
            metric="hidden_to_input",
            value=r.hidden / max(r.inputs, 1),
            threshold=limits.ratio,
        )
        for r in recurrents(layout)
        if r.hidden >= max(limits.ratio * r.inputs, limits.hidden)
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Use a smaller hidden size, or feed the layer more per step.",
    resolve_after=1,
)
