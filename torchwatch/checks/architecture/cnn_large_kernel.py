"""A convolution has a large kernel for the small map it reads.

What it detects
    A convolution whose kernel is at least 7 on every side (``kernel``) reads a map with a side of less than
    64 (``side``), in the shapes of the first step.

Why it matters
    On a small map a large kernel sees most of the picture at once: details are averaged away in the first
    layers, and three 3×3 convolutions reach as far with about half of the parameters. It is the mark of a
    network made for large photographs that was given thumbnails.

What to do
    A 3×3 kernel with stride 1 in the first layer, as networks for CIFAR have it, or larger images.

When it is fine
    Depthwise convolutions (``depthwise``), series (``series``), patches that do not overlap (``patches``),
    a kernel as large as its map, which is a Linear layer (``whole_map``), transposed convolutions, and a
    convolution to a single map, which is how spatial attention is written (``single``): these are left
    alone. It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import Convolution, convolutions

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a kernel is large. A guard at 0 is off.

    Attributes:
        kernel: smallest kernel, on its shorter side, that is large (places).
        side: it is too large on a map whose shorter side is below this (places).
        depthwise: guard: 1 leaves out depthwise convolutions (switch).
        series: guard: 1 leaves out convolutions over one axis (switch).
        patches: guard: 1 leaves out convolutions whose stride is their kernel (switch).
        whole_map: guard: 1 leaves out kernels as large as their map (switch).
        single: guard: 1 leaves out convolutions to one channel (switch).
    """

    kernel: int = 7
    side: int = 64
    depthwise: int = 1
    series: int = 1
    patches: int = 1
    whole_map: int = 1
    single: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per convolution."""
    reason = unfit(history, "cnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    return [
        Finding(
            title=f"A kernel of {'×'.join(map(str, c.kernel))} reads a map of "
            f"{'×'.join(map(str, c.given[2:]))}",
            since_step=layout.step,
            detail=f"{c.channels} to {c.filters} channels, stride {'×'.join(map(str, c.stride))}.",
            layer=c.layer.name,
            metric="kernel_size",
            value=float(min(c.kernel)),
            threshold=float(limits.kernel),
        )
        for c in convolutions(layout)
        if c.given and _is_too_large(c, limits) and not _is_exempt(c, limits)
    ]


def _is_too_large(conv: Convolution, limits: Limits) -> bool:
    return min(conv.kernel) >= limits.kernel and min(conv.given[2:], default=limits.side) < limits.side


def _is_exempt(conv: Convolution, limits: Limits) -> bool:
    return bool(
        conv.transposed
        or (limits.depthwise and conv.is_depthwise)
        or (limits.series and len(conv.kernel) == 1)
        or (limits.patches and conv.is_patching)
        or (limits.whole_map and all(k >= side for k, side in zip(conv.kernel, conv.given[2:], strict=False)))
        or (limits.single and conv.filters == 1)
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Use a 3×3 kernel with stride 1 on maps this small.",
    snippet="nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1)",
    resolve_after=1,
)
