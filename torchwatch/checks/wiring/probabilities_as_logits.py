"""Cross-entropy is given probabilities where it wants logits.

What it detects
    In three watched steps in a row every row that went into ``cross_entropy`` was non-negative and summed
    to 1: the output of a softmax. Where the loss function cannot be seen and the model ends in a softmax,
    an info: the losses of the last 100 steps lie at ln(e + K - 1) - 1, which is as low as a cross-entropy
    over a softmax over K probabilities can get, and none lies below.

Why it matters
    ``cross_entropy`` applies a softmax itself. A second one squeezes all scores into 0…1: the loss cannot
    fall below that floor (1.46 for ten classes), gradients are small, and training looks like a plateau.

What to do
    Return logits from the model, without softmax; apply it only where probabilities are shown. Or keep it
    and use ``nll_loss`` on its logarithm.

When it is fine
    Predictions that happen to be non-negative and sum to 1 in every row are hardly ever logits. A loss
    can come to rest near the floor by chance, therefore the second sign alone is only noted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

_SLACK = 1e-3
_LEAST_CLASSES = 2


@dataclass(frozen=True)
class Limits:
    """When predictions count as probabilities. A guard at 0 is off.

    Attributes:
        looks: watched steps in a row (steps).
        floor_steps: steps whose losses must all lie at the floor where the loss function is not seen (steps);
            0 leaves this sign out.
        above: how far above the floor the largest of them may lie (share of the floor).
        softmax: guard: 1 looks at the floor only where the layer called last is a softmax (switch).
    """

    looks: int = 3
    floor_steps: int = 100
    above: float = 0.05
    softmax: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    last = history.stretches("targets", 1)
    if not last:
        return _at_floor(history, limits)
    if not last[0].value.get("rows_sum_to_one"):
        return []
    count, since, classes = 0, last[0].first, last[0].value.get("classes")
    for stretch in reversed(history.stretches("targets")):
        if not stretch.value.get("rows_sum_to_one"):
            break
        count += stretch.last - stretch.first + 1
        since = stretch.first
    if count < max(1, limits.looks):
        return []
    floor = _floor(classes) if isinstance(classes, int) else math.nan
    return [
        Finding(
            title=f"cross_entropy is given probabilities: rows sum to 1 in {count} watched steps in a row",
            since_step=since,
            detail=f"A second softmax over {classes} classes keeps the loss above {number(floor)}.",
            metric="rows_sum_to_one",
            value=float(count),
            threshold=float(max(1, limits.looks)),
        )
    ]


def _floor(classes: int) -> float:
    """The least cross-entropy where the scores are probabilities: 1 for the right class, 0 for the others."""
    return math.log(math.e + classes - 1) - 1


def _at_floor(history: History, limits: Limits) -> list[Finding] | NotReady:
    """The second sign, where no loss function was seen."""
    losses = history.series("loss", limits.floor_steps)
    if not limits.floor_steps or len(losses.values) < limits.floor_steps:
        return NotReady(f"no loss function seen, and {len(losses.values)} of {limits.floor_steps} losses")
    low, high = float(losses.values.min()), float(losses.values.max())
    classes = _classes(history.layout, limits) if high <= low * (1 + limits.above) + _SLACK else None
    if classes is None:
        return []
    floor = _floor(classes)
    if not (floor - _SLACK <= low and high <= floor * (1 + limits.above)):
        return []
    return [
        Finding(
            title=f"The loss rests at {number(high)}, the floor of a softmax over a softmax",
            since_step=int(losses.steps[0]),
            detail=f"With {classes} classes it is {number(floor)}; the last {limits.floor_steps} losses lie "
            f"between {number(low)} and {number(high)}, and the model ends in a softmax.",
            severity=Severity.INFO,
            metric="loss",
            value=high,
            threshold=floor,
        )
    ]


def _classes(layout: Layout | None, limits: Limits) -> int | None:
    """Width of the output of the layer called last, None where that is no softmax."""
    called = [layer for layer in layout.layers if layer.order is not None] if layout is not None else []
    if not called:
        return None
    final = max(called, key=lambda layer: layer.order or 0)
    if limits.softmax and final.type != "Softmax":
        return None
    shape = final.outputs[0] if final.outputs else []
    return shape[1] if len(shape) >= 2 and shape[1] >= _LEAST_CLASSES else None


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("layout",),
    uses=("targets", "loss"),
    limits=Limits(),
    find=find,
    fix="Return logits: remove the softmax at the end of the model, since cross_entropy applies one itself.",
    snippet="return self.head(x)  # not self.head(x).softmax(-1)",
    resolve_after=10,
)
