"""One convolution holds most of a CNN's parameters.

What it detects
    In a network with at least three convolutions, one of them holds more than 60 % of all parameters
    (``share``).

Why it matters
    Capacity, memory and overfitting sit in one place, usually because the channels jump there. The layers
    around it cannot make use of what it puts out, or cannot feed it.

What to do
    Let the channels grow step by step, use a smaller kernel there, or split the layer: depthwise and
    pointwise, or 1×1 down, 3×3, 1×1 up.

When it is fine
    A small feature extractor in front of one deliberately wide layer. It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import convolutions, parameters_of

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When one convolution is too large. A guard at 0 is off.

    Attributes:
        share: share of all parameters above which it is (share).
        convolutions: guard: a network with fewer of them is left alone (count).
    """

    share: float = 0.6
    convolutions: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, for the largest."""
    reason = unfit(history, "cnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    found = convolutions(layout)
    if len(found) < limits.convolutions:
        return []
    total = parameters_of(layout)
    largest = max(found, key=lambda c: c.layer.parameters)
    share = largest.layer.parameters / max(total, 1)
    if share <= limits.share:
        return []
    size = "×".join(map(str, largest.kernel))
    return [
        Finding(
            title=f"{share:.0%} of all parameters are in one of {len(found)} convolutions",
            since_step=layout.step,
            detail=f"{largest.channels} to {largest.filters} channels with a kernel of {size}: "
            f"{largest.layer.parameters:,} of {total:,} parameters.",
            layer=largest.layer.name,
            metric="parameter_share",
            value=share,
            threshold=limits.share,
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
    fix="Let the channels grow step by step, or split this convolution.",
    resolve_after=1,
)
