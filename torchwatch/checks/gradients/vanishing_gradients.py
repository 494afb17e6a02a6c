"""The gradient dies out on its way to the first layers.

What it detects
    In two intervals in a row a layer's gradient RMS (L2 norm over the square root of its number of
    weights, median of the interval) is below 1e-7, or the first layer's is a thousand times below the
    last layer's and ten thousand times below its own weights'. One finding names the vanished layer
    nearest to the input.

Why it matters
    The early layers keep their random weights, and everything behind them trains on random features.

What to do
    Residual connections, normalisation, an initialisation that fits the activation, and ReLU or GELU in
    place of sigmoid and tanh. Gradient clipping and a larger learning rate do not help.

When it is fine
    Adam rescales gradients, so small ones alone say nothing: the layer's weights must stand still too
    (``update_ratio``). A run that has converged has small gradients everywhere, and a learning rate that
    has decayed stops all weights. Gradients of exactly zero were cut, not thinned out, and embeddings see
    most of their rows rarely: neither counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history import Columns, History
from torchwatch.records import Layout
from torchwatch.text import number

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """When a layer's gradient has vanished. A guard at 0 is off.

    Attributes:
        rms: largest gradient RMS of a vanished layer (loss units per weight unit).
        first_to_last: largest ratio of the first layer's gradient RMS to the last layer's (ratio).
        gradient_to_weight: with it, largest ratio of the first layer's gradient RMS to its weight RMS
            (ratio).
        intervals: intervals in a row (count).
        update_ratio: guard: the layer's largest update ratio must be below this too (ratio).
        lr_share: guard: the learning rate must be at least this share of its maximum (share).
        converged_share: guard: quiet where the interval's loss is below this share of the first one
            (share).
        healthy_factor: guard: a layer whose gradient RMS once was this many times above ``rms`` is quiet
            while the loss is at its best, because gradients shrink in every run that converges (factor).
        warm_up: guard: 1 leaves out intervals that end within warm-up (switch).
    """

    rms: float = 1e-7
    first_to_last: float = 1e-3
    gradient_to_weight: float = 1e-4
    intervals: int = 2
    update_ratio: float = 1e-6
    lr_share: float = 0.1
    converged_share: float = 0.01
    healthy_factor: float = 10.0
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, for the vanished layer that was called first."""
    layout = history.layout
    medians = history.interval_columns("grad_norms")
    if layout is None:
        return NotReady("no layout yet")
    start = np.searchsorted(medians.steps, history.warm_up_end(), side="right") if limits.warm_up else 0
    needed = max(1, limits.intervals)
    if len(medians.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up, {max(0, len(medians.steps) - start)} seen")
    layers = _judged_layers(layout)
    if not layers or _is_idle(history, limits):
        return []
    gradient = _rms_per_layer(medians, layout, layers)[start:]
    vanished = _vanished(history, layout, layers, gradient, limits) & _stands_still(
        history, layout, layers, len(gradient), limits
    )
    vanished[:, _was_healthy(history, gradient, limits)] = False
    now = np.flatnonzero(vanished[-needed:].all(axis=0))
    return [_finding(history, layout, layers, gradient, vanished, now, limits)] if now.size else []


def _judged_layers(layout: Layout) -> list[int]:
    """Trainable layers with a weight matrix, in call order; not embeddings."""
    matrices = {p.layer for p in layout.parameters if p.trainable and len(p.shape) > 1}
    called = [
        i for i in matrices
        if layout.layers[i].order is not None and "Embedding" not in layout.layers[i].type
    ]  # fmt: skip
    return sorted(called, key=lambda i: layout.layers[i].order or 0)


def _rms_per_layer(columns: Columns, layout: Layout, layers: list[int]) -> Rows:
    """RMS per observation and layer over its measured matrices, (n, layers); NaN where none was measured."""
    squares = columns.values.astype(np.float64) ** 2
    result = np.full((len(squares), len(layers)), np.nan)
    for place, layer in enumerate(layers):
        mine = [
            i
            for i, p in enumerate(layout.parameters)
            if p.layer == layer and p.trainable and len(p.shape) > 1
        ]
        sizes = np.array([np.prod(layout.parameters[i].shape) for i in mine], np.float64)
        known = np.isfinite(squares[:, mine])
        count = (known * sizes).sum(axis=1)
        total = np.where(known, squares[:, mine], 0.0).sum(axis=1)
        result[:, place] = np.sqrt(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))
    return result


def _is_idle(history: History, limits: Limits) -> bool:
    """The learning rate has decayed away, or the loss is at its floor."""
    rates = history.interval_series("lr_max").values
    if limits.lr_share and rates.size and rates[-1] < limits.lr_share * rates.max():
        return True
    losses = history.interval_series("loss_mean").values
    if not limits.converged_share or losses.size < 2:
        return False
    return bool(losses[0] > 0 and abs(losses[-1]) < limits.converged_share * losses[0])


def _vanished(
    history: History, layout: Layout, layers: list[int], gradient: Rows, limits: Limits
) -> npt.NDArray[np.bool_]:
    """Both triggers per interval and layer; exact zeros are cut off, which is another fault."""
    vanished = (gradient < limits.rms) & (gradient > 0)
    if len(layers) < 2:
        return vanished
    weights = history.interval_columns("weight_norms")
    weight = (
        _rms_per_layer(weights, layout, layers)[-len(gradient) :, 0] if len(weights.steps) else np.zeros(0)
    )
    if len(weight) == len(gradient):
        first, last = gradient[:, 0], gradient[:, -1]
        small = first < limits.gradient_to_weight * weight
        vanished[:, 0] |= (first > 0) & (first < limits.first_to_last * last) & small
    return vanished


def _stands_still(
    history: History, layout: Layout, layers: list[int], count: int, limits: Limits
) -> npt.NDArray[np.bool_]:
    """Whether a layer's matrices hardly moved, per interval and layer; without update ratios nothing does."""
    still = np.zeros((count, len(layers)), np.bool_)
    if not limits.update_ratio:
        return ~still
    ratios = history.interval_columns("update_ratios", count).values
    for place, layer in enumerate(layers):
        mine = [
            i
            for i, p in enumerate(layout.parameters)
            if p.layer == layer and p.trainable and len(p.shape) > 1
        ]
        known = np.isfinite(ratios[:, mine])
        largest = np.where(known, ratios[:, mine], -1.0).max(axis=1)
        still[count - len(largest) :, place] = known.any(axis=1) & (largest < limits.update_ratio)
    return still


def _was_healthy(history: History, gradient: Rows, limits: Limits) -> npt.NDArray[np.bool_]:
    """Layers whose gradient was large once, while the loss is within 5 % of its best: that is convergence."""
    losses = history.interval_series("loss_mean").values
    if not limits.healthy_factor or losses.size < 2:
        return np.zeros(gradient.shape[1], np.bool_)
    spread = losses[0] - losses.min()
    at_best = spread > 0 and losses[-1] <= losses.min() + 0.05 * spread
    largest = np.where(np.isfinite(gradient), gradient, 0.0).max(axis=0)
    healthy: npt.NDArray[np.bool_] = (largest > limits.healthy_factor * limits.rms) & at_best
    return healthy


def _finding(
    history: History, layout: Layout, layers: list[int], gradient: Rows,
    vanished: npt.NDArray[np.bool_], now: npt.NDArray[np.int64], limits: Limits,
) -> Finding:  # fmt: skip
    place = int(now[0])
    fine = np.flatnonzero(~vanished[:, place])
    ends = history.interval_columns("grad_norms").steps[-len(gradient) :]
    onset = int(ends[fine[-1]]) + 1 if fine.size else _first_step(history, int(ends[0]))
    value, last = float(gradient[-1, place]), float(gradient[-1, -1])
    name = layout.layers[layers[place]].name
    names = ", ".join(layout.layers[layers[i]].name for i in now[1:5])
    others = f" So it is in {len(now) - 1} more layers ({names})." if len(now) > 1 else ""
    return Finding(
        title=f"Gradient RMS {number(value)} in {name or 'the model'}: it hardly learns",
        since_step=onset,
        detail=f"The last layer's is {number(last)}; so it was in {limits.intervals} intervals.{others}",
        layer=name,
        metric="grad_norms",
        value=value,
        threshold=limits.rms,
    )


def _first_step(history: History, last_step: int) -> int:
    """First step of the interval that ends with ``last_step``."""
    return next((i.first_step for i in reversed(history.intervals) if i.last_step == last_step), last_step)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.INTERVAL}),
    reads=("grad_norms",),
    uses=("update_ratios", "weight_norms", "lr", "loss"),
    limits=Limits(),
    find=find,
    fix="Use residual connections, normalisation, ReLU or GELU, and an initialisation that fits them.",
    snippet="torch.nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')",
)
