"""Most units of a layer are hardly ever active.

What it detects
    More than half of a layer's units (channels, features) have a mean magnitude of at most 0.025 of the
    layer's mean, over the last one to two windows of 512 samples: they are dormant in the sense of Sokar et
    al. (2023). Where units are read is said in ``dead-units``.

Why it matters
    Dormant units carry next to nothing: the layer is narrower than it looks. In reinforcement learning, where
    this was found, networks that go dormant stop adapting.

What to do
    Re-initialise the dormant units, lower the learning rate, use LeakyReLU or GELU; or make the layer
    narrower.

When it is fine
    Sparse codes, pruned layers and mixtures of experts are dormant by design. Dead units are reported as
    such; a layer of which half is dead already is not repeated here. Flattened images, whose border pixels
    are constant, raw inputs and rectifiers at the end of the model are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up, onset
from torchwatch.checks.activations._order import in_call_order
from torchwatch.checks.activations._units import Subject, subject_of
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History

_LISTED = 5


@dataclass(frozen=True)
class Limits:
    """When a layer is dormant. A guard at 0 is off.

    Attributes:
        share: largest share of dormant units (share).
        intervals: guard: intervals in a row (count).
        least_units: guard: least units of the layer (units).
        dead: guard: a layer with a larger share of dead units belongs to ``dead-units`` (share).
        warm_up: guard: 1 leaves out intervals that end within warm-up (switch).
    """

    share: float = 0.5
    intervals: int = 2
    least_units: int = 8
    dead: float = 0.5
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding about all dormant layers."""
    layout = history.layout
    medians = history.interval_columns("activations.dormant_fraction")
    start = after_warm_up(history, medians.steps, limits.warm_up)
    needed = max(1, limits.intervals)
    if layout is None or len(medians.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up, {max(0, len(medians.steps) - start)} seen")
    if not (medians.values[-1] > limits.share).any():
        return []
    over = medians.values[start:] > limits.share
    dead = history.interval_columns("activations.dead_fraction", 1).values
    order = in_call_order(layout)
    found: dict[str, tuple[Subject, int]] = {}
    for i in np.flatnonzero(over[-needed:].all(axis=0)).tolist():
        if limits.dead and len(dead) and dead[-1, i] > limits.dead:
            continue
        subject = subject_of(layout, order, i, medians.values[-1])
        if subject is not None and not subject.flat and (subject.units or 0) >= limits.least_units:
            found.setdefault(subject.layer, (subject, i))
    if not found:
        return []
    shares = {name: float(medians.values[-1, i]) for name, (_, i) in found.items()}
    worst = max(shares, key=lambda name: shares[name])
    return [
        Finding(
            title=f"{percent(shares[worst])} of the units of {worst or 'the model'} are dormant",
            since_step=min(onset(history, medians.steps[start:], over[:, i]) for _, i in found.values()),
            detail="; ".join(
                f"{percent(shares[name])} of the {s.units} units of {name or 'the model'}. {s.detail}"
                for name, (s, _) in list(found.items())[:_LISTED]
            ),
            metric="activations.dormant_fraction",
            value=shares[worst],
            threshold=limits.share,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.dormant_fraction",),
    uses=("activations.dead_fraction",),
    limits=Limits(),
    find=find,
    fix="Re-initialise the dormant units, use LeakyReLU or GELU, lower the learning rate.",
    snippet="nn.LeakyReLU(0.01)  # instead of nn.ReLU()",
)
