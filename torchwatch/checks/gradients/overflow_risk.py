"""Half precision is about to overflow.

What it detects
    In two sampled steps of an interval the largest magnitude in a layer's output is above half of the
    largest number of its 16-bit type (65,504 in float16), or the largest gradient of a parameter that is
    itself of 16 bits, multiplied by the scaler's scale, is. Of layers in a row the first is named.

Why it matters
    One factor of two more and it is infinite, and NaN one operation later. Under a scaler the step is then
    skipped; without one the run is lost.

What to do
    Use bfloat16, which has the range of float32. Otherwise scale inputs and losses down, normalise in front
    of the layer, keep that layer in float32.

When it is fine
    Attention masks filled with the smallest number of the type reach its very limit on purpose: from 0.999
    of it on nothing is said. What is infinite already belongs to the checks of non-finite values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.activations._order import in_call_order
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

Rows = npt.NDArray[np.float64]

_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}


@dataclass(frozen=True)
class Limits:
    """When half precision is about to overflow. A guard at 0 is off.

    Attributes:
        share: largest share of the type's largest number (share).
        observations: sampled steps of the interval in which it must be over (count).
        filled: guard: from this share on it was filled in on purpose (share).
    """

    share: float = 0.5
    observations: int = 2
    filled: float = 0.999


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per chain of layers whose output is too large, and per parameter whose gradient is."""
    layout = history.layout
    if layout is None or not history.intervals:
        return NotReady("no interval yet")
    found = []
    headroom = history.columns("activations.headroom")
    over = {i: (share, since) for i, share, since in _over(history, *headroom, limits)}
    order = in_call_order(layout) if over else []
    for before, index in zip([None, *order], order, strict=False):
        if index not in over or before in over:
            continue
        name, (share, since) = layout.layers[index].name, over[index]
        subject, metric = f"The output of {name or 'the model'}", "activations.headroom"
        found.append(_finding(subject, name, metric, share, since, limits))
    for index, share, since in _over(history, *_gradients(history, layout), limits):
        parameter = layout.parameters[index]
        name = layout.layers[parameter.layer].name
        found.append(_finding(f"The gradient of {parameter.name}", name, "grad_absmax", share, since, limits))
    return found


def _gradients(history: History, layout: Layout) -> tuple[npt.NDArray[np.int64], Rows]:
    """Largest gradients of 16-bit parameters, as they were in memory, over the largest number."""
    column = history.columns("grad_absmax")
    largest = [_LARGEST.get(p.dtype.removeprefix("torch."), np.nan) for p in layout.parameters]
    if not len(column.steps) or np.isnan(largest).all():
        return column.steps[:0], np.zeros((0, len(largest)))
    scale = history.series("grad_scale")
    factor = np.ones(len(column.steps))
    if len(scale.steps):
        at = np.searchsorted(scale.steps, column.steps, side="right") - 1
        factor = np.where(at >= 0, scale.values[np.maximum(at, 0)], 1.0)
    return column.steps, column.values * factor[:, None] / np.array(largest)


def _over(
    history: History, steps: npt.NDArray[np.int64], shares: npt.NDArray[np.floating], limits: Limits
) -> list[tuple[int, float, int]]:
    """Index, largest share and first step of the entries that are over in the last interval."""
    start = int(np.searchsorted(steps, history.intervals[-1].first_step))
    recent = shares[start:]
    if not len(recent) or not (recent > limits.share).any():
        return []
    over = (recent > limits.share) & ~(recent >= (limits.filled or np.inf))
    places = np.flatnonzero(over.sum(axis=0) >= max(1, limits.observations)).tolist()
    return [
        (i, float(recent[over[:, i], i].max()), int(steps[start + int(np.argmax(over[:, i]))]))
        for i in places
    ]


def _finding(subject: str, layer: str, metric: str, share: float, since: int, limits: Limits) -> Finding:
    return Finding(
        title=f"{subject} reaches {percent(share)} of the largest number of its type",
        since_step=since,
        detail=f"A factor of {number(1 / share)} more overflows.",
        layer=layer,
        metric=metric,
        value=share,
        threshold=limits.share,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.headroom",),
    uses=("grad_absmax", "grad_scale"),
    limits=Limits(),
    find=find,
    fix="Use bfloat16, or normalise in front of the layer and keep it in float32.",
    snippet='with torch.autocast("cuda", enabled=False):\n    y = layer(x.float())\n',
)
