"""A layer with few parameters takes much of the time.

What it detects
    In a profiler window a layer's share of the layers' time is at least ten times its share of the model's
    parameters, and 10 % or more of the time. Layers without parameters, and norms, which have none to spare,
    are left out.

Why it matters
    Its few weights are applied to very many positions. There is nothing to prune, but something to shrink.

What to do
    Reduce the spatial size or the sequence before it (stride, pooling, patches), use a depthwise-separable
    convolution, fewer channels at full resolution.

When it is fine
    First convolutions on images are always like this; what counts is whether the resolution is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, On, Severity
from torchwatch.checks.profiler._window import latest
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a layer takes too long for what it holds.

    Attributes:
        factor: share of time over share of parameters (factor).
        compute: least share of the layers' time (share).
    """

    factor: float = 10.0
    compute: float = 0.1


def find(history: History, limits: Limits) -> list[Finding]:
    """One finding for each such layer."""
    window = latest(history)
    return [
        Finding(
            title=f"{percent(found.parameters)} of the parameters take {percent(found.compute)} of the time",
            since_step=window.step,
            detail=f"{found.layer.type} with {found.layer.parameters:,} parameters"
            + (f", output {'×'.join(map(str, found.layer.outputs[0]))}." if found.layer.outputs else "."),
            layer=found.layer.name,
            metric="profile.share",
            value=found.compute / found.parameters,
            threshold=limits.factor,
        )
        for found in window.leaves
        if found.parameters > 0
        and found.compute >= max(limits.factor * found.parameters, limits.compute)
        and "norm" not in found.layer.type.lower()
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.PROFILER,
    cause=Cause.OTHER,
    when=frozenset({On.PROFILE}),
    reads=("profile", "layout"),
    limits=Limits(),
    find=find,
    fix="Make its input smaller (stride, pooling, patches), or use a depthwise-separable convolution.",
    snippet=(
        "nn.Sequential(\n"
        "    nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Conv2d(c, d, 1)\n"
        ")  # instead of nn.Conv2d(c, d, 3, padding=1)\n"
    ),
)
