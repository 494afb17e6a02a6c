"""A layer gets a gradient of exactly zero.

What it detects
    All gradients of a trainable layer were exactly 0 in each of the last 20 steps in which they were
    observed. Zeros spread towards the input, so of a chain of such layers the one nearest to the loss is
    named. A layer that had gradients and gets none at all any more is noted as an info.

Why it matters
    The layer does not learn. Numbers become small by themselves but hardly ever exactly zero: something
    cuts the gradient.

What to do
    Look for dead units behind the layer (``dead-units``), a ``detach()`` or ``.data``, a mask that covers
    everything, a clamp or a rounding in its way, and in float16 without a gradient scaler for underflow.

When it is fine
    Layers that did not run in these steps: experts without tokens, the heads of other tasks. Embeddings see
    most of their rows rarely. A loss at its floor has nothing left to teach, and a gradient that is zero in
    the whole model then says so. Layers that never had a gradient are ``unused-parameters``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import is_converged
from torchwatch.records import is_missing

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

_NAMED = 4


@dataclass(frozen=True)
class Limits:
    """When a layer's gradient is zero. A guard at 0 is off.

    Attributes:
        steps: observed steps in a row (steps, at most 64).
        ran: guard: 1 leaves out layers that did not run in every sampled step among these (switch).
        embeddings: guard: 1 leaves out embeddings (switch).
        converged_share: guard: quiet where the interval's loss is below this share of the first one (share).
    """

    steps: int = 20
    ran: int = 1
    embeddings: int = 1
    converged_share: float = 0.01


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per chain of layers without a gradient."""
    layout, needed = history.layout, max(1, limits.steps)
    column = history.columns("grad_norms")
    if layout is None or len(column.steps) < needed:
        return NotReady(f"needs {needed} steps with gradients, {len(column.steps)} seen")
    last = column.values[-1]
    had = ~is_missing(history.first_column("grad_norms"))
    if not ((last == 0) | (is_missing(last) & had)).any() or is_converged(history, limits.converged_share):
        return []
    rows = column.values[-needed:]
    zero, none = rows == 0, is_missing(rows)
    silent = (zero | none).all(axis=0) & (zero.any(axis=0) | had)
    return [
        _finding(history, chain, zero.any(axis=0), limits)
        for chain in _chains(layout, _silent_layers(history, layout, silent, limits))
    ]


def _members(layout: Layout, layer: int) -> list[int]:
    """Trainable parameters of a layer that an optimizer has."""
    return [
        i for i, p in enumerate(layout.parameters)
        if p.layer == layer and p.trainable and p.optimizer is not None
    ]  # fmt: skip


def _silent_layers(
    history: History, layout: Layout, silent: npt.NDArray[np.bool_], limits: Limits
) -> dict[int, bool]:
    """Layers with trainable parameters, in call order, and whether all of these are silent."""
    ran = _ran(history, limits)
    members: dict[int, list[int]] = {}
    for i, p in enumerate(layout.parameters):
        if p.trainable and p.optimizer is not None:
            members.setdefault(p.layer, []).append(i)
    result = {}
    for layer in sorted(members, key=lambda i: _place(layout, i)):
        rarely = limits.embeddings and "Embedding" in layout.layers[layer].type
        result[layer] = bool(silent[members[layer]].all()) and bool(ran[layer]) and not rarely
    return result


def _place(layout: Layout, layer: int) -> tuple[bool, int, int]:
    """For sorting in call order; what was never called as a module comes last."""
    order = layout.layers[layer].order
    return order is None, order or 0, layer


def _ran(history: History, limits: Limits) -> npt.NDArray[np.bool_]:
    """Layers that ran in every sampled step among those looked at; unknown counts as ran."""
    first = history.first_column("activations.rms")
    ran = np.ones(len(first), np.bool_)
    outputs = history.columns("activations.rms")
    if not limits.ran or not len(outputs.steps):
        return ran
    steps = history.columns("grad_norms", max(1, limits.steps)).steps
    recent = outputs.values[int(np.searchsorted(outputs.steps, steps[0])) :]
    recent = recent if len(recent) else outputs.values[-1:]
    return np.asarray(~is_missing(recent).any(axis=0) | is_missing(first))


def _chains(layout: Layout, layers: dict[int, bool]) -> list[list[int]]:
    """Runs of silent layers in call order, each with the layer nearest to the loss first."""
    chains: list[list[int]] = []
    joined = False
    for layer, is_silent in layers.items():
        if is_silent and joined and layout.layers[layer].order is not None:
            chains[-1].insert(0, layer)
        elif is_silent:
            chains.append([layer])
        joined = is_silent
    return chains


def _finding(history: History, chain: list[int], zero: npt.NDArray[np.bool_], limits: Limits) -> Finding:
    layout = history.layout
    assert layout is not None
    layer = layout.layers[chain[0]]
    members = _members(layout, chain[0])
    exact = bool(zero[members].any())
    column = history.columns("grad_norms")
    rows = column.values[:, members]
    fine = np.flatnonzero(~((rows == 0) | is_missing(rows)).all(axis=1))
    since = int(column.steps[fine[-1] + 1 if fine.size else 0])
    names = ", ".join(layout.layers[i].name or "the model" for i in chain[1 : 1 + _NAMED])
    before = f" So it is in {len(chain) - 1} more layers before it ({names})." if len(chain) > 1 else ""
    what = "is exactly 0" if exact else "is not computed any more"
    return Finding(
        title=f"The gradient of {layer.name or 'the model'} {what}",
        since_step=since,
        detail=f"In each of the last {max(1, limits.steps)} observed steps.{before}",
        severity=Severity.WARNING if exact else Severity.INFO,
        layer=layer.name,
        metric="grad_norms",
        value=0.0,
        threshold=0.0,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.INTERVAL}),
    reads=("grad_norms",),
    uses=("activations.rms", "loss"),
    limits=Limits(),
    find=find,
    fix="Look for dead units, a detach() or an all-zero mask between this layer and the loss.",
)
