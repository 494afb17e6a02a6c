"""Trainable parameters get gradients, but no optimizer holds them.

What it detects
    After ten steps a parameter that requires gradients has received non-zero ones and is in no optimizer
    that stepped so far (several optimizers count together). One finding names up to five; its layer is
    the first.

Why it matters
    These weights keep their initial values, silently. The rest of the model trains around random
    features, and the forgotten gradients cost time and memory in every backward pass.

What to do
    Pass them to the optimizer (a group added after a head was replaced is the usual miss), or freeze
    them.

When it is fine
    Training only a head on a backbone that was left trainable: freeze the backbone with
    ``requires_grad_(False)``, or declare ``frozen_stages``. Loops that update weights by hand are left
    alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.wiring._map import first_layer, frozen_stages, is_in, listed

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a parameter counts as forgotten.

    Attributes:
        steps: step records before anything is judged (steps).
        parameters: forgotten parameters (count).
        gradient: norm that a gradient must have had once (L2, loss units per weight unit).
    """

    steps: int = 10
    parameters: int = 1
    gradient: float = 0.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding that names all of them."""
    layout = history.layout
    if layout is None or history.steps_seen < limits.steps:
        return NotReady(f"needs {limits.steps} steps, {history.steps_seen} seen")
    unowned = [i for i, p in enumerate(layout.parameters) if p.optimizer is None and p.trainable]
    if not unowned:
        return []
    if not layout.optimizers:
        return NotReady("no optimizer seen")
    ratios = history.columns("update_ratios").values
    moved = ratios[:, unowned] if len(ratios) else ratios
    gradients = history.columns("grad_norms")
    if not len(gradients.steps):
        return NotReady("no gradients under the present layout yet")
    got = gradients.values[:, unowned] > limits.gradient
    by_hand = (moved > 0).any(axis=0) if len(moved) else np.zeros(len(unowned), np.bool_)
    stages = frozen_stages(history)
    forgotten = [unowned[i] for i in np.flatnonzero(got.any(axis=0) & ~by_hand)]
    found = [i for i in forgotten if not is_in(stages, layout.parameters[i].name)]
    if len(found) < max(1, limits.parameters):
        return []
    since = int(gradients.steps[np.flatnonzero(got.any(axis=1))[0]])
    return [_finding(layout, found, since, max(1, limits.parameters))]


def _finding(layout: Layout, found: list[int], since: int, threshold: int) -> Finding:
    names = listed([layout.parameters[i].name for i in found])
    weights = sum(int(np.prod(layout.parameters[i].shape)) for i in found)
    total = sum(int(np.prod(p.shape)) for p in layout.parameters)
    return Finding(
        title=f"{len(found)} trainable parameter{'s get' if len(found) > 1 else ' gets'} gradients "
        f"and {'are' if len(found) > 1 else 'is'} in no optimizer",
        since_step=since,
        detail=f"{names}: {weights:,} of {total:,} weights.",
        layer=first_layer(layout, found),
        metric="unoptimized_parameters",
        value=float(len(found)),
        threshold=float(threshold),
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("layout", "grad_norms"),
    uses=("update_ratios",),
    limits=Limits(),
    find=find,
    fix="Give these parameters to the optimizer, or freeze them with requires_grad_(False).",
    snippet="optimizer.add_param_group({'params': model.head.parameters()})",
)
