"""A CNN classifies from a map that it never made smaller.

What it detects
    The last three or more convolutions in call order (``convolutions``) work on maps with sides above 14
    (``side``), with no pooling, stride or other down-sampling between them or behind them until the map is
    flattened or averaged for the classifier. Down-sampling is told from the shapes of the first step, so a
    functional pooling counts. Kernels of one place reach nowhere and do not count as convolutions here.

Why it matters
    Each convolution then sees a few pixels more than the one before, and no unit ever sees the whole object.
    Full-size maps also cost most of the memory and time, and a flatten of one makes a huge Linear layer.

What to do
    Halve the map every two or three convolutions: ``nn.MaxPool2d(2)`` or a stride of 2.

When it is fine
    Where down-sampling follows, as between the stages of VGG or ResNet (``last``); where the convolutions
    together reach across the whole map, as in networks for board games (``reach``); and where the output is
    an image: segmentation, denoising, super-resolution. It is never more than an info.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import Convolution, called, convolutions, whole

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When down-sampling is missing. A guard at 0 is off.

    Attributes:
        convolutions: convolutions in a row without it (count).
        side: their maps' shorter sides are above this (places).
        last: guard: 1 judges only the last convolutions, and only where a classifier reads their map, so that
            what is made smaller later and what ends as an image is left alone (switch).
        reach: guard: 1 leaves out convolutions that together reach across their map (switch).
    """

    convolutions: int = 3
    side: int = 14
    last: int = 1
    reach: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, for the first of the convolutions."""
    reason = unfit(history, "cnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    ran = [c for c in convolutions(layout) if len(c.kernel) > 1 and c.given and c.put_out]
    runs = _runs(ran, limits)
    if limits.last:
        runs = [r for r in runs[-1:] if r and _is_classified(layout, ran[-1])]
    long = [r for r in runs if len(r) >= max(1, limits.convolutions)]
    long = [r for r in long if not limits.reach or _reach(r) < min(r[0].given[2:])]
    if not long:
        return []
    run = max(long, key=len)
    size = "×".join(map(str, run[-1].put_out[2:]))
    return [
        Finding(
            title=f"{len(run)} convolutions in a row on maps of about {size} without down-sampling",
            since_step=layout.step,
            detail=f"Up to {run[-1].layer.name}; together they reach across {_reach(run)} places.",
            layer=run[0].layer.name,
            metric="convolutions",
            value=float(len(run)),
            threshold=float(limits.convolutions),
        )
    ]


def _runs(found: list[Convolution], limits: Limits) -> list[list[Convolution]]:
    """Convolutions that follow each other on maps of one size; a run may be empty."""
    runs: list[list[Convolution]] = [[]]
    before: list[int] = []
    for conv in found:
        sides = conv.given[2:]
        if before and sides != before:
            runs.append([])
        if max(conv.stride) > 1 or conv.transposed:
            runs.append([])
        elif min(sides) > limits.side and max(conv.kernel) > 1:
            runs[-1].append(conv)
        before = conv.put_out[2:]
    return runs


def _reach(run: list[Convolution]) -> int:
    """Places, on the side where they are fewest, that one place behind the run depends on."""
    axes = range(min(len(c.kernel) for c in run))
    return 1 + min(sum((c.kernel[axis] - 1) * c.dilation[axis] for c in run) for axis in axes)


def _is_classified(layout: Layout, last: Convolution) -> bool:
    """Whether a Linear layer behind reads this very map, flattened at its full size or averaged at once."""
    behind = [x for x in called(layout) if (x.order or 0) > (last.layer.order or 0)]
    reader = next((x for x in behind if whole(x, "in_features") is not None), None)
    shape = reader.inputs[0] if reader is not None and reader.inputs else []
    return len(shape) == 2 and shape[1] in (last.filters, math.prod(last.put_out[1:]))


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Halve the map every two or three convolutions, with a pooling or a stride of 2.",
    snippet="nn.MaxPool2d(2)",
    resolve_after=1,
)
