"""Gradients are never cleared: every step adds to the ones before.

What it detects
    At three watched steps in a row the gradients that the optimizer had just used were still there,
    untouched, when the next backward pass began. It is watched in the first steps and on sampled ones.

Why it matters
    The optimizer then follows the sum of all gradients since the start. That acts like momentum without
    decay: the norm grows without bound, the loss oscillates, and it all looks like a learning rate that
    is too high.

What to do
    Call ``optimizer.zero_grad()`` once per step, before ``loss.backward()``.

When it is fine
    Accumulating over several backward passes between two steps is normal and does not count. Only a
    method that means to carry gradients across steps does this on purpose: ignore the check there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history import Series
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When gradients count as never cleared.

    Attributes:
        steps: watched steps in a row that began with the gradients of the step before (steps).
    """

    steps: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    last = history.series("stale_gradients", 1)
    if not last.values.size:
        return NotReady("not watched yet")
    if not last.values[0]:
        return []
    stale = _with_gradients(history)
    clean = np.flatnonzero(stale.values == 0)
    run = stale.steps[int(clean[-1]) + 1 if clean.size else 0 :]
    if len(run) < max(1, limits.steps):
        return []
    return [
        Finding(
            title=f"Gradients were not cleared in {len(run)} watched steps in a row",
            since_step=int(run[0]),
            detail=_growth(history, int(run[0])),
            metric="stale_gradients",
            value=float(len(run)),
            threshold=float(max(1, limits.steps)),
        )
    ]


def _with_gradients(history: History) -> Series:
    """Watched steps but those whose gradients were all 0: cleared too late, after backward, not never."""
    stale, norms = history.series("stale_gradients"), history.series("grad_norm")
    empty = norms.steps[norms.values == 0]
    keep = ~np.isin(stale.steps, empty)
    return Series(stale.steps[keep], stale.values[keep])


def _growth(history: History, since: int) -> str:
    """How the gradient norm went, as far as it is known."""
    norms = history.series("grad_norm")
    values = norms.values[np.searchsorted(norms.steps, since) :]
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return "The optimizer follows the sum of all gradients since then."
    return (
        f"The gradient norm went from {number(float(values[0]))} to {number(float(values[-1]))} since then."
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("stale_gradients",),
    uses=("grad_norm",),
    limits=Limits(),
    find=find,
    fix="Call optimizer.zero_grad() once per step, before loss.backward().",
    snippet="optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
    resolve_after=10,
)
