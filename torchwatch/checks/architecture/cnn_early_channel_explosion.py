"""The first convolution makes very many channels out of one, on a small image.

What it detects
    The first convolution that ran reads one channel (``channels``) and makes more than 32 (``filters``),
    on an image with a side of less than 64 (``side``).

Why it matters
    A small grey image has few local patterns: a 3×3 neighbourhood has nine numbers, so most of the filters
    must become copies of each other or die, at the largest map, where each of them costs most.

What to do
    Begin with 8 to 32 channels and double them where the map is halved.

When it is fine
    Patches that do not overlap are not filtered but encoded, and need their width (``patches``). It is
    never more than an info.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import convolutions

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When the first convolution is too wide. A guard at 0 is off.

    Attributes:
        channels: most input channels that it may have to be judged (channels).
        filters: output channels above which it is too wide (channels).
        side: the image's shorter side must be below this (pixels).
        patches: guard: 1 leaves out a first convolution whose stride is its kernel (switch).
    """

    channels: int = 1
    filters: int = 32
    side: int = 64
    patches: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding."""
    reason = unfit(history, "cnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    first = next((c for c in convolutions(layout) if len(c.kernel) > 1 and c.given), None)
    if first is None:
        return NotReady("no convolution over an image was seen")
    small = first.channels <= limits.channels and min(first.given[2:], default=limits.side) < limits.side
    if not small or first.filters <= limits.filters or (limits.patches and first.is_patching):
        return []
    sides, kernel = ("×".join(map(str, x)) for x in (first.given[2:], first.kernel))
    return [
        Finding(
            title=f"The first convolution makes {first.filters} channels out of {first.channels}",
            since_step=layout.step,
            detail=f"The image is {sides}; of it a kernel of {kernel} sees "
            f"{math.prod((first.channels, *first.kernel))} numbers.",
            layer=first.layer.name,
            metric="filters",
            value=float(first.filters),
            threshold=float(limits.filters),
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
    fix="Begin with 8 to 32 channels and double them where the map is halved.",
    resolve_after=1,
)
