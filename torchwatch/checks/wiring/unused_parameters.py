"""Trainable parameters have never received a gradient.

What it detects
    In twenty steps and at least five looks a parameter that requires gradients had none, although others
    did, from the first look on. One finding names up to five; its layer is the first.

Why it matters
    The module is not part of what is trained: its branch is never called, its output is dropped or
    detached. Its weights keep their initial values, and under DistributedDataParallel such parameters are
    an error.

What to do
    Remove the module, freeze its parameters, or find out why its output does not reach the loss. Under
    DistributedDataParallel pass ``find_unused_parameters=True`` where it is meant.

When it is fine
    Heads that a task does not use, experts that were not chosen yet, and stages whose turn comes later
    (declare ``frozen_stages``). It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.wiring._map import (
    LATER,
    first_layer,
    frozen_stages,
    in_force,
    indices,
    is_due,
    is_in,
    left_out,
    listed,
    looks,
)
from torchwatch.records import is_missing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a parameter counts as unused. A guard at 0 is off.

    Attributes:
        steps: steps without a gradient (steps).
        looks: guard: sampled steps among them (steps).
        from_the_start: guard: 1 leaves out parameters that had a gradient once (switch).
    """

    steps: int = 20
    looks: int = 5
    from_the_start: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding that names all of them."""
    state, layout = in_force(history), history.layout
    if state is None or layout is None:
        return NotReady("not watched yet")
    if not state.get("no_gradient"):
        return []
    if history.step < limits.steps:
        return NotReady(f"needs {limits.steps} steps, {history.step} seen")
    if not is_due(history, max(state.get("no_gradient_since") or [0])):
        return LATER
    since = _without_gradient(history, layout, state, limits)
    if not since or looks(history, max(since.values())) < limits.looks:
        return []
    return [_finding(history, layout, since, left_out(state, "no_gradient"), limits)]


def _without_gradient(
    history: History, layout: Layout, state: Mapping[str, Any], limits: Limits
) -> dict[int, int]:
    """Index and first step without a gradient of every parameter that is unused by now."""
    stages = frozen_stages(history)
    since = {
        index: began
        for index, began in zip(state["no_gradient"], state.get("no_gradient_since", ()), strict=False)
        if indices([index], len(layout.parameters))
        and history.step - began + 1 >= limits.steps
        and not is_in(stages, layout.parameters[index].name)
    }
    if not limits.from_the_start or not since:
        return since
    places = list(since)
    recent = history.columns("grad_norms").values[:, places]
    never = is_missing(history.first_column("grad_norms")[places]) & is_missing(recent).all(axis=0)
    return {index: began for (index, began), none in zip(since.items(), never, strict=True) if none}


def _finding(
    history: History, layout: Layout, since: Mapping[int, int], more: int, limits: Limits
) -> Finding:
    found = sorted(since)
    count, start = len(found) + more, min(since.values())
    weights = sum(_size(layout.parameters[i].shape) for i in found)
    total = sum(_size(p.shape) for p in layout.parameters)
    return Finding(
        title=f"{count} trainable parameter{'s have' if count > 1 else ' has'} never had a gradient",
        since_step=start,
        detail=f"{listed([layout.parameters[i].name for i in found], more)}: {'at least ' if more else ''}"
        f"{weights:,} of {total:,} weights, in {history.step - start + 1} steps.",
        layer=first_layer(layout, found),
        metric="no_gradient",
        value=float(count),
        threshold=float(limits.steps),
    )


def _size(shape: list[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


CHECK = Check(
    severity=Severity.INFO,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("wiring", "grad_norm"),
    uses=("grad_norms", "weight_norms", "optimizer_s"),
    limits=Limits(),
    find=find,
    fix="Remove them, freeze them with requires_grad_(False), or let their output reach the loss.",
    snippet="model = DistributedDataParallel(model, find_unused_parameters=True)  # where it is meant",
    resolve_after=10,
)
