"""A layer's output has grown out of all proportion.

What it detects
    The rms of a layer's output (median of the interval) is more than a thousand times its reference: the
    larger of its first value and the median first value of layers of the same type. Of a chain of such
    layers the first is named.

Why it matters
    What follows saturates, gradients that come back through it are as much too large, and half precision
    overflows.

What to do
    Normalise (LayerNorm, RMSNorm), scale residual branches down, lower the learning rate, clip gradients.

When it is fine
    Layers that start at or near zero, and outputs that are small in any case: the rms must be above 10. The
    logits of a classifier that has become certain grow for as long as it is trained: while the loss is at
    its best it is only noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import loss_is_at_its_best, onset
from torchwatch.checks.activations._order import in_call_order
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When an output explodes. A guard at 0 is off.

    Attributes:
        factor: how many times its reference the rms must be (factor).
        least: guard: least rms (units of the output).
        best_loss: guard: 1 only notes it while the loss is at its best (switch).
    """

    factor: float = 1e3
    least: float = 10.0
    best_loss: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per chain of layers."""
    layout = history.layout
    medians = history.interval_columns("activations.rms")
    if layout is None or not len(medians.steps):
        return NotReady("no interval with a sampled step yet")
    last, first = medians.values[-1], history.first_column("activations.rms")
    if not ((last > limits.factor * first) & (last > limits.least)).any():
        return []
    reference = _reference(layout, first)
    over = (last > limits.factor * reference) & (last > limits.least)
    fine = bool(limits.best_loss) and loss_is_at_its_best(history)
    found, before = [], False
    for i in in_call_order(layout):
        if over[i] and not before:
            found.append(_finding(history, i, float(reference[i]), limits, fine=fine))
        before = bool(over[i])
    return found


def _reference(layout: Layout, first: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    types: dict[str, list[int]] = {}
    for i, layer in enumerate(layout.layers):
        types.setdefault(layer.type, []).append(i)
    reference = first.astype(np.float64)
    for members in types.values():
        known = reference[members][np.isfinite(reference[members])]
        if known.size:
            reference[members] = np.fmax(reference[members], np.median(known))
    return reference


def _finding(history: History, index: int, reference: float, limits: Limits, *, fine: bool) -> Finding:
    layout = history.layout
    assert layout is not None
    layer, medians = layout.layers[index], history.interval_columns("activations.rms")
    value = float(medians.values[-1, index])
    grown = f"{number(value / reference)} times" if reference > 0 else f"from 0 to {number(value)}"
    return Finding(
        title=f"The output of {layer.name or 'the model'} has grown {grown}",
        since_step=onset(history, medians.steps, medians.values[:, index] > limits.factor * reference),
        detail=f"Rms {number(value)}, reference {number(reference)}."
        + (" Only noted, because the loss is at its best." if fine else ""),
        severity=Severity.INFO if fine else Severity.WARNING,
        layer=layer.name,
        metric="activations.rms",
        value=value,
        threshold=max(limits.factor * reference, limits.least),
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.rms",),
    uses=("loss",),
    limits=Limits(),
    find=find,
    fix="Normalise, scale residual branches down, lower the learning rate, clip gradients.",
    snippet="nn.LayerNorm(features)",
)
