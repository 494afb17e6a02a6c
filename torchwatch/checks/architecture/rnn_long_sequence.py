"""A recurrent layer is unrolled over a very long sequence.

What it detects
    In the first step a recurrent layer was given more than 1,000 steps at once (``length``), in a model
    without attention. Of packed sequences the mean length counts; cells do not show how often they are
    called, and are not judged.

Why it matters
    The gradient passes through every step: over so many it vanishes or explodes, and the activations of all
    of them are kept in memory. What happened a thousand steps ago will hardly be learned.

What to do
    Truncated back-propagation: chunks of some hundred steps, the state detached between them. Or fewer
    steps (a strided convolution in front, a coarser sampling), or attention.

When it is fine
    Where only the near past matters, as in many audio models, training works all the same. It is never more
    than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import attentions_of, recurrents

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a sequence is too long. A guard at 0 is off.

    Attributes:
        length: most steps at once (steps of the sequence).
        attention: guard: 1 leaves out models with attention, which reaches over any distance (switch).
    """

    length: int = 1000
    attention: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, for the longest."""
    reason = unfit(history, "rnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    known = [(length, r.layer) for r in recurrents(layout) if (length := r.length) is not None]
    if not known:
        return NotReady("no length of a sequence was seen")
    length, layer = max(known, key=lambda entry: entry[0])
    if length <= limits.length or (limits.attention and attentions_of(history)):
        return []
    return [
        Finding(
            title=f"The {layer.type} is unrolled over {length:,} steps",
            since_step=layout.step,
            detail=f"Its input has the shape {'×'.join(map(str, layer.inputs[0]))}.",
            layer=layer.name,
            metric="sequence_length",
            value=float(length),
            threshold=float(limits.length),
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Train on chunks of some hundred steps and detach the state between them.",
    snippet="state = tuple(s.detach() for s in state)  # between chunks",
    resolve_after=1,
)
