"""The weights of a layer grow without end.

What it detects
    The norm of a weight matrix (median of the interval) is more than ten times its reference and has grown
    by at least 1 % in each of the last three intervals. The reference is the largest of its first norm, the
    median first norm of matrices of the same shape, and the norm that torch's usual initialisation gives.

Why it matters
    Large weights make large outputs: softmax and attention saturate, half precision overflows, and a fixed
    learning rate moves such a layer ever less.

What to do
    Weight decay (decoupled, as in AdamW), a lower learning rate, normalisation of the layer's input.

When it is fine
    Matrices that start at or near zero, such as the second factor of LoRA or a zeroed last layer, grow by
    any factor: the reference is never below a usual initialisation. Biases and the gains of norms are not
    looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import onset
from torchwatch.checks.gradients._matrices import matrices, reference_norms
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a layer's weights grow too much. A guard at 0 is off.

    Attributes:
        factor: how many times its reference the norm must be (factor).
        intervals: guard: intervals in a row in which it grew (count).
        growth: guard: by at least this share in each (share).
    """

    factor: float = 10.0
    intervals: int = 3
    growth: float = 0.01


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per layer, about its largest matrix."""
    layout = history.layout
    medians = history.interval_columns("weight_norms")
    needed = max(0, limits.intervals) + 1
    if layout is None or len(medians.steps) < needed:
        return NotReady(f"needs {needed} intervals, {len(medians.steps)} seen")
    last = medians.values[-1]
    if not (last > limits.factor * history.first_column("weight_norms")).any():
        return []
    reference = reference_norms(history, layout)
    with np.errstate(all="ignore"):
        factor = last / reference
    over = (factor > limits.factor) & matrices(layout)
    if limits.intervals:
        recent = medians.values[-needed:].astype(np.float64)
        over &= (recent[1:] >= (1 + limits.growth) * recent[:-1]).all(axis=0)
    found: dict[int, int] = {}
    for i in np.flatnonzero(over).tolist():
        layer = layout.parameters[i].layer
        if layer not in found or factor[i] > factor[found[layer]]:
            found[layer] = i
    return [_finding(history, i, float(reference[i]), limits) for i in found.values()]


def _finding(history: History, index: int, reference: float, limits: Limits) -> Finding:
    layout = history.layout
    assert layout is not None
    parameter, medians = layout.parameters[index], history.interval_columns("weight_norms")
    norms = medians.values[:, index].astype(np.float64)
    norm = float(norms[-1])
    return Finding(
        title=f"The norm of {parameter.name} is {number(norm / reference)} times its reference, and grows",
        since_step=onset(history, medians.steps, norms > limits.factor * reference),
        detail=f"Norm {number(norm)}, reference {number(reference)}; "
        f"{limits.intervals} intervals ago {number(float(norms[-1 - max(0, limits.intervals)]))}.",
        layer=layout.layers[parameter.layer].name,
        metric="weight_norms",
        value=norm,
        threshold=limits.factor * reference,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.PARAMETER,
    when=frozenset({On.INTERVAL}),
    reads=("weight_norms",),
    limits=Limits(),
    find=find,
    fix="Use weight decay, lower the learning rate, normalise the layer's input.",
    snippet="torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)",
)
