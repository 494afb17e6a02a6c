"""Two layers in a row compute almost the same.

What it detects
    The similarity (debiased linear CKA; Kornblith et al. 2019, Nguyen et al. 2021) of the outputs of two
    consecutive layers of the same type and shape is above 0.95 in two measurements after warm-up. What is
    measured, on rare steps, is the similarity of each layer to the next one called, activations and norms
    included. CKA is a cosine, so along such a chain angles add up at most: cos(θ₁ + θ₂ + …) is a lower bound
    of the similarity of its ends, and that bound is what must be above the limit.

Why it matters
    A layer that hands on what it was given costs time and memory for nothing.

What to do
    Remove one of the two and compare the validation loss, or share their weights.

When it is fine
    Early in training most layers pass on what they get. In residual networks it is the branches that are
    compared, never the stream. The bound misses pairs with much in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up
from torchwatch.checks.activations._order import in_call_order, shape_of
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

_LISTED = 5
_FEW_SAMPLES = 8


@dataclass(frozen=True)
class Limits:
    """When layers are redundant. A guard at 0 is off.

    Attributes:
        similarity: least debiased CKA (0 to 1).
        observations: guard: measurements in a row (count).
        warm_up: guard: 1 leaves out measurements within warm-up (switch).
    """

    similarity: float = 0.95
    observations: int = 2
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding about all such pairs."""
    layout, needed = history.layout, max(1, limits.observations)
    similar = history.columns("activations.cka")
    start = after_warm_up(history, similar.steps, limits.warm_up)
    if layout is None or len(similar.steps) - start < needed:
        return NotReady(f"needs {needed} measured similarities after warm-up")
    rows = similar.values[-needed:]
    if not (rows > limits.similarity).all(axis=0).any():
        return []
    found = [p for p in _pairs(layout, rows.astype(np.float64)) if p[2] > limits.similarity]
    if not found:
        return []
    first, second, value = max(found, key=lambda p: p[2])
    names = [(layout.layers[a].name, layout.layers[b].name) for a, b, _ in found]
    listed = ", ".join(f"{a} and {b}" for a, b in names[:_LISTED])
    return [
        Finding(
            title=f"{layout.layers[first].name} and {layout.layers[second].name} put out almost the same: "
            f"similarity at least {number(value)}",
            since_step=int(similar.steps[-needed]),
            detail=f"All such pairs: {listed}." if len(found) > 1 else "",
            metric="activations.cka",
            value=value,
            threshold=limits.similarity,
        )
    ]


def _pairs(layout: Layout, rows: npt.NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Consecutive layers of the same role, and the least lower bound of their similarity over the rows."""
    angles = np.arccos(np.clip(rows, -1.0, 1.0)).max(axis=0)
    shapes: dict[int, list[list[int]]] = {}
    for p in layout.parameters:
        if sum(n > 1 for n in p.shape) > 1:
            shapes.setdefault(p.layer, []).append(p.shape)
    found = []
    order = [i for i in in_call_order(layout) if shape_of(layout.layers[i])[:1] >= [_FEW_SAMPLES]]
    before: int | None = None
    angle = 0.0
    for i in order:
        if i in shapes:
            if before is not None and _same_role(layout, before, i) and shapes[before] == shapes[i]:
                found.append((before, i, math.cos(min(angle, math.pi))))
            before, angle = i, 0.0
        angle += float(angles[i])
    return [pair for pair in found if math.isfinite(pair[2])]


def _same_role(layout: Layout, one: int, other: int) -> bool:
    a, b = layout.layers[one], layout.layers[other]
    return a.type == b.type and shape_of(a) == shape_of(b)


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.cka",),
    limits=Limits(),
    find=find,
    fix="Remove one of the two layers and compare the validation loss.",
)
