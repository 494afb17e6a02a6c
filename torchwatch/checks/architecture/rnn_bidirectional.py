"""A bidirectional recurrent layer in a model declared causal.

What it detects
    The user declared ``causal`` (the model may only see the past, as in streaming or forecasting), and a
    recurrent layer runs in both directions.

Why it matters
    The backward direction reads the future. Training and validation look splendid, and the model cannot be
    used: when it runs, there is no future to read.

What to do
    ``bidirectional=False``, or a window of a few steps of look-ahead that is available at run time as well.

When it is fine
    Offline tasks, where whole sequences are given. Do not declare ``causal`` there: without that nothing is
    said. Encoders of a causal decoder may be bidirectional, which is why this is an info.
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
    """When both directions are a fault. A guard at 0 is off.

    Attributes:
        declared: guard: 1 judges only models declared as causal (switch).
    """

    declared: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per layer."""
    reason = unfit(history, "rnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    if limits.declared and not history.declared.get("causal"):
        return []
    return [
        Finding(
            title=f"A bidirectional {r.layer.type} reads the future of a causal model",
            since_step=layout.step,
            layer=r.layer.name,
            metric="directions",
            value=2.0,
            threshold=1.0,
        )
        for r in recurrents(layout)
        if r.bidirectional
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Use bidirectional=False in a model that may only see the past.",
    snippet="nn.LSTM(input_size, hidden_size, batch_first=True, bidirectional=False)",
    resolve_after=1,
)
