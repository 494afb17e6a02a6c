"""The optimizer steps, and no weight changes.

What it detects
    In three steps in a row the gradients were not zero, the learning rate was not decayed away, and not
    one of the sampled weights changed. Or: only optimizers that hold none of the model's parameters step,
    while the model's gradients change. Or: gradients were looked for from the first step on, no parameter
    has had one in ten steps, and no weight changed.

Why it matters
    The loop runs, the loss is computed, and nothing is learned. Usually the optimizer holds other tensors
    than the model: the model was moved, copied, wrapped or created again after the optimizer was made. No
    gradients at all: ``backward()`` is missing, the loss was detached, or ``zero_grad()`` stands between
    ``backward()`` and ``step()``.

What to do
    Create the optimizer after the model is on its device and in its final form, from
    ``model.parameters()``.

When it is fine
    Converged runs whose updates shrank below the resolution of their weights (``resolution``), line
    searches that stay where they are (LBFGS), and models made of embeddings alone, of which a step
    touches only rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History

Steps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """When steps count as having no effect. A guard at 0 is off.

    Attributes:
        steps: steps in a row (steps).
        lr_share: guard: the learning rate must be at least this share of its maximum so far (share), and
            not be rising, because the first steps of a warm-up can be too small to change a weight.
        resolution: guard: quiet where the last update ratio that was not 0 was already below this
            (ratio).
        foreign_steps: guard: steps of foreign optimizers before the own one's first (steps), because
            another network's optimizer may begin.
        bare_steps: steps without any gradient since the run began (steps).
        sparse: guard: 1 judges no model whose optimised parameters are all embeddings (switch).
        line_search: guard: 1 judges no run with LBFGS (switch).
    """

    steps: int = 3
    lr_share: float = 0.01
    resolution: float = 1e-6
    foreign_steps: int = 10
    bare_steps: int = 10
    sparse: int = 1
    line_search: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    if history.seen("foreign_optimizer") and _is_on(history, "foreign_optimizer"):
        return _foreign(history, limits)
    ratio = history.series("update_ratio", 1)
    if not ratio.values.size:
        return NotReady("no weight change measured yet")
    if ratio.values[0] != 0:
        return []
    if not history.seen("grad_norm"):
        return _bare(history, limits)
    return _unchanged(history, limits)


def _is_on(history: History, name: str) -> bool:
    last = history.series(name, 1)
    return bool(last.values.size and last.values[0] and last.steps[0] == history.step)


def _unchanged(history: History, limits: Limits) -> list[Finding]:
    ratios = history.series("update_ratio")
    moved = np.flatnonzero(ratios.values != 0)
    if limits.resolution and moved.size and abs(ratios.values[moved[-1]]) < limits.resolution:
        return []
    stood = ratios.steps[int(moved[-1]) + 1 if moved.size else 0 :]
    usable = _with_gradient(history, stood) & ~_at(history, "skipped", stood)
    if limits.lr_share:
        usable &= _has_rate(history, stood, limits.lr_share)
    idle = np.flatnonzero(~usable)
    run = stood[int(idle[-1]) + 1 if idle.size else 0 :]
    if len(run) < max(1, limits.steps) or _is_exempt(history, limits):
        return []
    norms = history.series("grad_norm")
    norm = float(norms.values[np.searchsorted(norms.steps, run[-1])])
    return [
        Finding(
            title=f"No weight changed in {len(run)} optimizer steps in a row",
            since_step=int(run[0]),
            detail=f"The gradient norm was {number(norm)} and the update ratio exactly 0.",
            metric="update_ratio",
            value=0.0,
            threshold=float(max(1, limits.steps)),
        )
    ]


def _bare(history: History, limits: Limits) -> list[Finding]:
    """No parameter has had a gradient since the run began, although they were looked for."""
    layout = history.layout
    if layout is None or layout.coverage.get("gradients") != "ok" or _is_exempt(history, limits):
        return []
    ratios = history.series("update_ratio")
    usable = ~_at(history, "skipped", ratios.steps)
    if limits.lr_share:
        usable &= _has_rate(history, ratios.steps, limits.lr_share)
    if ratios.values.any() or usable.sum() < max(1, limits.bare_steps):
        return []
    return [
        Finding(
            title=f"No parameter has had a gradient in {len(ratios.steps)} optimizer steps",
            since_step=int(ratios.steps[0]),
            detail="The optimizer steps, finds no gradient on any parameter, and changes nothing.",
            metric="update_ratio",
            value=0.0,
            threshold=float(max(1, limits.bare_steps)),
            fix="Call loss.backward() right before optimizer.step(), and zero_grad() before it; do not "
            "detach the loss.",
            snippet="optimizer.zero_grad()\nloss.backward()\noptimizer.step()",
        )
    ]


def _with_gradient(history: History, steps: Steps) -> npt.NDArray[np.bool_]:
    norms = history.series("grad_norm")
    return np.isin(steps, norms.steps[np.isfinite(norms.values) & (norms.values > 0)])


def _at(history: History, name: str, steps: Steps) -> npt.NDArray[np.bool_]:
    """Steps at which a flag was set."""
    flags = history.series(name)
    return np.isin(steps, flags.steps[flags.values > 0])


def _has_rate(history: History, steps: Steps, share: float) -> npt.NDArray[np.bool_]:
    """Steps whose learning rate is large enough and not rising; all where it is not known."""
    rates = history.series("lr")
    if not rates.values.size:
        return np.ones(len(steps), np.bool_)
    known = np.concatenate([history.first("lr").values, history.older("lr").values, rates.values])
    rising = np.concatenate([[False], np.diff(rates.values) > 0])
    fine = (rates.values >= share * known.max()) & (rates.values > 0) & ~rising
    return np.isin(steps, rates.steps[fine])


def _is_exempt(history: History, limits: Limits) -> bool:
    layout = history.layout
    if layout is None:
        return False
    if limits.line_search and any("LBFGS" in o.type for o in layout.optimizers):
        return True
    owned = [layout.layers[p.layer].type for p in layout.parameters if p.optimizer is not None]
    return bool(limits.sparse) and bool(owned) and all("Embedding" in t for t in owned)


def _foreign(history: History, limits: Limits) -> list[Finding]:
    """Every step so far was one of an optimizer that holds no watched parameter."""
    steps = history.series("foreign_optimizer").steps
    needed = max(1, limits.steps, limits.foreign_steps)
    alone = history.steps_seen == len(steps) or steps[-1] - steps[0] + 1 == len(steps)
    if len(steps) < needed or not alone:
        return []
    return [
        Finding(
            title=f"The last {len(steps)} optimizer steps changed no weight of this model",
            since_step=int(steps[0]),
            detail="The model's gradients change, but the optimizer that steps holds none of its parameters.",
            metric="foreign_optimizer",
            value=float(len(steps)),
            threshold=float(needed),
        )
    ]


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("step_time_s",),
    uses=("grad_norm", "update_ratio", "foreign_optimizer", "lr", "skipped"),
    limits=Limits(),
    find=find,
    fix="Create the optimizer from model.parameters() after the model has been moved, wrapped or re-created.",
    snippet="model = model.to(device)\noptimizer = torch.optim.AdamW(model.parameters(), lr=lr)",
    resolve_after=10,
)
