"""A layer's outputs have come to lie in few directions.

What it detects
    The effective rank of a layer's outputs (the exponential of the entropy of their normalised singular
    values, Roy & Vetterli 2007; up to 64 samples by 2,048 features, on rare steps) is below 10 % of what it
    could be, the smaller of samples and features, and below a third of its first value.

Why it matters
    What follows sees only a few numbers, however wide the layer is. Features that collapse early take away
    what later training could have used.

What to do
    Weight decay on the layers behind it, a wider bottleneck, decorrelating or contrastive terms in the loss,
    residual connections.

When it is fine
    The rank is measured on rare steps, about every hundredth, and a fall counts when it was measured twice:
    it is told some 200 steps after it began. Classifiers trained to the end gather their last features
    around one point per class. It is an info for that reason, and never more. Outputs with fewer than ten
    directions in all are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.activations._order import samples_and_features
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import LayerInfo

_SAMPLES, _FEATURES = 64, 2048
_LISTED = 5


@dataclass(frozen=True)
class Limits:
    """When the rank has collapsed. A guard at 0 is off.

    Attributes:
        share: least effective rank over the smaller of samples and features (share).
        fell: guard: the rank must be below this share of its first value (share).
        observations: guard: measurements in a row (count).
        least: guard: the smaller of samples and features is at least this (count).
    """

    share: float = 0.1
    fell: float = 1 / 3
    observations: int = 2
    least: int = 20


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding about all such layers."""
    layout, needed = history.layout, max(1, limits.observations)
    ranks = history.columns("activations.effective_rank")
    if layout is None or len(ranks.steps) < needed:
        return NotReady(f"needs {needed} measured ranks, {len(ranks.steps)} seen")
    first = history.first_column("activations.effective_rank")
    recent = ranks.values[-needed:]
    fell = ~(recent >= limits.fell * first).any(axis=0) if limits.fell else np.ones(len(first), np.bool_)
    found = []
    for i in np.flatnonzero(fell & np.isfinite(recent).all(axis=0)).tolist():
        most = _most(layout.layers[i])
        if most >= max(1, limits.least) and (recent[:, i] < limits.share * most).all():
            found.append((i, most))
    if not found:
        return []
    index, most = min(found, key=lambda f: float(recent[-1, f[0]]) / f[1])
    value, name = float(recent[-1, index]), layout.layers[index].name or "the model"
    more = ", ".join(layout.layers[i].name for i, _ in found if i != index)
    return [
        Finding(
            title=f"The outputs of {name} span {number(value)} of {most} directions",
            since_step=min(_onset(history, i, n, limits) for i, n in found),
            detail=f"At first it was {number(float(first[index]))}."
            + (f" Low in {more}, too." if more else ""),
            metric="activations.effective_rank",
            value=value,
            threshold=limits.share * most,
        )
    ]


def _most(layer: LayerInfo) -> int:
    """The largest rank that the measurement could give."""
    samples, features = samples_and_features(layer)
    return min(samples, features, _SAMPLES, _FEATURES)


def _onset(history: History, index: int, most: int, limits: Limits) -> int:
    """The first measurement of the last stretch of low ones."""
    ranks = history.columns("activations.effective_rank")
    fine = np.flatnonzero(ranks.values[:, index] >= limits.share * most)
    return int(ranks.steps[fine[-1] + 1 if fine.size else 0])


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.effective_rank",),
    limits=Limits(),
    find=find,
    fix="Regularise what is behind the layer, widen the bottleneck, or add a decorrelating term to the loss.",
)
