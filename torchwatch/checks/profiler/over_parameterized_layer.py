"""A layer holds many parameters and does little work.

What it detects
    In a profiler window a layer's share of the model's parameters is at least ten times its share of the
    layers' time, and it has 5 % of all parameters or more. Embeddings are exempt: they are tables.

Why it matters
    Its weights cost memory, optimizer states, checkpoint size and gradient exchange, and it is where a model
    most easily learns its training set by heart.

What to do
    Global average pooling before a large linear layer, a narrower layer, or a factorised one (two linear
    layers with a small number of features between them).

When it is fine
    Layers that run on one vector per sample while others run on thousands of positions, on purpose: a
    classifier's head over an expensive backbone.
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
    """When a layer has too many parameters for what it does.

    Attributes:
        factor: share of parameters over share of time (factor).
        parameters: least share of all parameters (share).
    """

    factor: float = 10.0
    parameters: float = 0.05


def find(history: History, limits: Limits) -> list[Finding]:
    """One finding for each such layer."""
    window = latest(history)
    return [
        Finding(
            title=f"{percent(found.parameters)} of the parameters do {percent(found.compute)} of the work",
            since_step=window.step,
            detail=f"{found.layer.type} with {found.layer.parameters:,} parameters.",
            layer=found.layer.name,
            metric="profile.share",
            value=found.parameters / found.compute if found.compute else None,
            threshold=limits.factor,
        )
        for found in window.leaves
        if found.parameters >= max(limits.factor * found.compute, limits.parameters)
        and "embedding" not in found.layer.type.lower()
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.PROFILER,
    cause=Cause.OTHER,
    when=frozenset({On.PROFILE}),
    reads=("profile", "layout"),
    limits=Limits(),
    find=find,
    fix="Pool before it, make it narrower, or factorise it into two small layers.",
    snippet="nn.Sequential(nn.Linear(n, 64, bias=False), nn.Linear(64, m))  # instead of nn.Linear(n, m)",
)
