"""A layer's weights move far too much in a step, or not at all.

What it detects
    In two intervals in a row the median of ‖Δw‖/‖w‖ of a layer's weight matrices is above 0.1; or it is
    below 1e-8 although the layer has gradients and the other layers move ten thousand times as much.

Why it matters
    A healthy layer moves by about a thousandth of itself. One that replaces a tenth of itself in every step
    forgets what it learnt within ten; one that moves by less than its numbers can resolve stays what it was.

What to do
    Give the layer a parameter group with a learning rate of its own. Above: lower it, by as much as the
    ratio lies above 1e-3. Below: raise it; weights kept in bfloat16 lose small updates to rounding and need
    float32 copies.

When it is fine
    Biases, gains of norms and embeddings are not looked at, nor is a matrix that is still below a tenth of
    a usual initialisation's size because it started at zero. A decayed learning rate, a group whose rate is
    zero and a loss that has converged stop all weights on purpose. As long as the loss is at its best, too
    large steps are only noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import (
    after_warm_up,
    is_converged,
    loss_is_at_its_best,
    lr_is_low,
    onset,
)
from torchwatch.checks.gradients._matrices import Rows, matrices, reference_norms
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a layer moves too much or too little. A guard at 0 is off.

    Attributes:
        high: largest update ratio (ratio).
        low: least update ratio (ratio).
        intervals: intervals in a row (count).
        others: guard: how many times as much the median matrix must move for ``low`` (factor).
        lr_share: guard: the learning rate must be at least this share of its maximum (share).
        settled: guard: a matrix counts once its norm has reached this share of its reference (share).
        converged_share: guard: ``low`` is quiet where the loss is below this share of its first (share).
        best_loss: guard: 1 only notes ``high`` while the loss is at its best (switch).
        warm_up: guard: 1 leaves out intervals that end within warm-up (switch).
    """

    high: float = 0.1
    low: float = 1e-8
    intervals: int = 2
    others: float = 1e4
    lr_share: float = 0.1
    settled: float = 0.1
    converged_share: float = 0.01
    best_loss: int = 1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per layer."""
    layout = history.layout
    medians = history.interval_columns("update_ratios")
    needed = max(1, limits.intervals)
    start = after_warm_up(history, medians.steps, limits.warm_up)
    if layout is None or len(medians.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up, {max(0, len(medians.steps) - start)} seen")
    last = medians.values[-1]
    if not ((last > limits.high) | (last < limits.low)).any() or lr_is_low(history, limits.lr_share):
        return []
    judged = _judged(history, layout, limits)
    ratios = _by_layer(layout, medians.values[start:].astype(np.float64), judged)
    ends = medians.steps[start:]
    high = ratios > limits.high
    found = [_too_much(history, layout, i, ratios, ends, limits) for i in _lasting(high, needed)]
    if limits.low and not is_converged(history, limits.converged_share):
        typical = np.array([_typical(row) for row in ratios])
        low = (ratios < limits.low) & (typical > limits.others * limits.low)[:, None]
        pushed = _pushed(history, layout, judged)
        found += [
            _too_little(history, layout, i, ratios, ends, low, limits)
            for i in _lasting(low, needed)
            if pushed[i]
        ]
    return found


def _typical(ratios: Rows) -> float:
    """Median over the layers that moved, 0 where none did."""
    moved = ratios[ratios > 0]
    return float(np.median(moved)) if moved.size else 0.0


def _lasting(holds: npt.NDArray[np.bool_], needed: int) -> list[int]:
    return [int(i) for i in np.flatnonzero(holds[-needed:].all(axis=0))]


def _judged(history: History, layout: Layout, limits: Limits) -> npt.NDArray[np.bool_]:
    """Matrices of layers other than embeddings, in a group with a learning rate, that have settled."""
    judged = matrices(layout)
    for i, p in enumerate(layout.parameters):
        if judged[i] and ("Embedding" in layout.layers[p.layer].type or not _has_rate(layout, i)):
            judged[i] = False
    norms = history.columns("weight_norms", 1).values
    if limits.settled and len(norms):
        judged &= ~(norms[-1] < limits.settled * reference_norms(history, layout))
    return judged


def _has_rate(layout: Layout, index: int) -> bool:
    """Whether the parameter's group had a learning rate above zero when the layout was written."""
    parameter = layout.parameters[index]
    if parameter.optimizer is None or parameter.group is None:
        return True
    rate = layout.optimizers[parameter.optimizer].groups[parameter.group].get("lr")
    return bool(rate != 0)


def _by_layer(layout: Layout, values: Rows, judged: npt.NDArray[np.bool_]) -> Rows:
    """Largest value per interval and layer among the judged matrices, (n, layers); NaN for none."""
    result = np.full((len(values), len(layout.layers)), np.nan)
    for i in np.flatnonzero(judged).tolist():
        layer = layout.parameters[i].layer
        result[:, layer] = np.fmax(result[:, layer], values[:, i])
    return result


def _pushed(history: History, layout: Layout, judged: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Layers with a gradient in every observation of the last interval; others have nothing to follow."""
    column = history.columns("grad_norms")
    start = int(np.searchsorted(column.steps, history.intervals[-1].first_step)) if history.intervals else 0
    rows = column.values[start:]
    pushed = np.zeros(len(layout.layers), np.bool_)
    for i in np.flatnonzero(judged & (rows > 0).all(axis=0)).tolist() if len(rows) else ():
        pushed[layout.parameters[i].layer] = True
    return pushed


def _too_much(
    history: History,
    layout: Layout,
    index: int,
    ratios: Rows,
    ends: npt.NDArray[np.int64],
    limits: Limits,
) -> Finding:
    name, value = layout.layers[index].name, float(ratios[-1, index])
    fine = bool(limits.best_loss) and loss_is_at_its_best(history)
    return Finding(
        title=f"{name or 'The model'} moves by {number(value)} of its weights in every step",
        since_step=onset(history, ends, ratios[:, index] > limits.high),
        detail=f"The median layer moves by {number(_typical(ratios[-1]))}."
        + (" Only noted, because the loss is at its best." if fine else ""),
        severity=Severity.INFO if fine else Severity.WARNING,
        layer=name,
        metric="update_ratios",
        value=value,
        threshold=limits.high,
        fix="Lower the learning rate of this layer, in a parameter group of its own.",
    )


def _too_little(
    history: History,
    layout: Layout,
    index: int,
    ratios: Rows,
    ends: npt.NDArray[np.int64],
    low: npt.NDArray[np.bool_],
    limits: Limits,
) -> Finding:
    name, value = layout.layers[index].name, float(ratios[-1, index])
    return Finding(
        title=f"{name or 'The model'} stands still: a step moves it by {number(value)} of its weights",
        since_step=onset(history, ends, low[:, index]),
        detail=f"It has gradients, and the median layer moves by {number(_typical(ratios[-1]))}.",
        layer=name,
        metric="update_ratios",
        value=value,
        threshold=limits.low,
        fix="Raise the learning rate of this layer's group; keep float32 copies of bfloat16 weights.",
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.INTERVAL}),
    reads=("update_ratios",),
    uses=("weight_norms", "grad_norms", "lr", "loss"),
    limits=Limits(),
    find=find,
    fix="Give this layer a parameter group with a learning rate of its own.",
    snippet='optimizer.add_param_group({"params": layer.parameters(), "lr": lr / 10})',
)
