"""Frozen parameters change inside the optimizer's step.

What it detects
    A parameter with ``requires_grad=False`` that the optimizer holds was changed by its step. Gradients
    that keep changing excuse it: then the flag is only off while the step runs. A parameter that no
    optimizer holds and that changes there all the same is noted as an info.

Why it matters
    Weights that were meant to stay drift away: weight decay shrinks them and momentum moves them on,
    because a parameter that is frozen after a gradient had reached it still has that gradient (as zeros,
    or the last one). A pretrained backbone is lost bit by bit, with no gradient that shows it.

What to do
    Freeze before the optimizer is made and give it only what is trained, or set the ``grad`` of frozen
    parameters to None.

When it is fine
    A teacher that is copied outside the step is not seen here. One that is updated by a hook of the
    optimizer is in no optimizer, and neither is a tensor that shares memory with a trained one on purpose.
    Methods that write gradients by hand (evolution strategies) train without the flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.wiring._map import (
    LATER,
    first_layer,
    in_force,
    indices,
    is_due,
    left_out,
    listed,
    looks,
    onset,
)

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a frozen parameter counts as changed. A guard at 0 is off.

    Attributes:
        parameters: changed parameters that the optimizer holds (count).
        looks: guard: with gradients that are not 0, sampled steps in which they must not have changed
            (steps).
    """

    parameters: int = 1
    looks: int = 2


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most two findings: of parameters in an optimizer, and of others."""
    state, layout = in_force(history), history.layout
    if state is None or layout is None:
        return NotReady("not watched yet")
    if not state.get("frozen_changed"):
        return []
    since = onset(history, lambda found: found.get("frozen_changed"))
    if not is_due(history, since):
        return LATER
    changed = indices(state["frozen_changed"], len(layout.parameters))
    held = [i for i in changed if layout.parameters[i].optimizer is not None]
    others = [i for i in changed if layout.parameters[i].optimizer is None]
    more = left_out(state, "frozen_changed")
    moved = [] if _by_hand(layout) else _not_trained(history, held, since, limits)
    found = []
    if len(moved) >= max(1, limits.parameters):
        found.append(_finding(layout, moved, more, since, limits, held=True))
    if others and looks(history, since) >= limits.looks:
        found.append(_finding(layout, others, 0 if held else more, since, limits, held=False))
    return found


def _by_hand(layout: Layout) -> bool:
    """Whether nothing that an optimizer holds is trainable: somebody else writes the gradients."""
    return not any(p.trainable for p in layout.parameters if p.optimizer is not None)


def _not_trained(history: History, held: list[int], since: int, limits: Limits) -> list[int]:
    """Those whose gradient is missing, 0, or the same in all looks."""
    if not limits.looks:
        return held
    norms = history.columns("grad_norms")
    rows = norms.values[np.searchsorted(norms.steps, since) :]
    found = []
    for index in held:
        known = rows[:, index][np.isfinite(rows[:, index])]
        same = bool(known.size) and known.min() == known.max()
        if not known.any() or (same and known.size >= limits.looks):
            found.append(index)
    return found


def _finding(
    layout: Layout, found: list[int], more: int, since: int, limits: Limits, *, held: bool
) -> Finding:
    count = len(found) + more
    names = listed([layout.parameters[i].name for i in found], more)
    why = (
        "The optimizer holds them: weight decay or momentum goes on."
        if held
        else "No optimizer holds them: memory shared with a trained tensor, or a hook of the optimizer."
    )
    return Finding(
        title=f"{count} frozen parameter{'s' if count > 1 else ''} changed inside the optimizer's step",
        since_step=since,
        detail=f"{names}. {why}",
        severity=Severity.WARNING if held else Severity.INFO,
        layer=first_layer(layout, found) if held else None,
        metric="frozen_changed",
        value=float(count),
        threshold=float(max(1, limits.parameters)),
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("wiring",),
    uses=("grad_norms", "weight_norms", "optimizer_s"),
    limits=Limits(),
    find=find,
    fix="Give the optimizer only parameters that are trained, or set the grad of frozen ones to None.",
    snippet="optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)",
    resolve_after=10,
)
