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

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up, is_converged, lr_is_low, onset
from torchwatch.history import Columns, History
from torchwatch.records import Layout
from torchwatch.text import number

Rows = npt.NDArray[np.float64]

_NAMED = 4


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
    start = after_warm_up(history, medians.steps, limits.warm_up)
    needed = max(1, limits.intervals)
    if len(medians.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up, {max(0, len(medians.steps) - start)} seen")
    layers = _Layers(layout)
    if not layers.places or _is_idle(history, limits):
        return []
    if limits.update_ratio and not history.seen("update_ratios"):
        return NotReady("no update ratios, so rescaled gradients cannot be told from vanished ones")
    gradient = layers.rms(medians)[start:]
    vanished = _vanished(history, layers, gradient, limits) & _stands_still(
        history, layers, len(gradient), limits
    )
    vanished[:, _was_healthy(history, gradient, limits)] = False
    now = np.flatnonzero(vanished[-needed:].all(axis=0))
    return [_finding(history, layers, gradient, vanished, now, limits)] if now.size else []


class _Layers:
    """Trainable layers with a weight matrix, in call order; not embeddings.

    ``places`` are their indices in the layout, ``members`` those of their matrices among the parameters, and
    ``owner`` the place of each of these matrices' layer.
    """

    def __init__(self, layout: Layout) -> None:
        matrices = [i for i, p in enumerate(layout.parameters) if p.trainable and len(p.shape) > 1]
        orders = {
            i: layer.order
            for i in {layout.parameters[m].layer for m in matrices}
            if (layer := layout.layers[i]).order is not None and "Embedding" not in layer.type
        }
        self.places = sorted(orders, key=lambda i: orders[i] or 0)
        place = {layer: at for at, layer in enumerate(self.places)}
        self.members = [m for m in matrices if layout.parameters[m].layer in place]
        self.owner = np.array([place[layout.parameters[m].layer] for m in self.members], np.int64)
        self._sizes = np.array([math.prod(layout.parameters[m].shape) for m in self.members], np.float64)
        self.names = [layout.layers[i].name for i in self.places]

    def rms(self, norms: Columns) -> Rows:
        """RMS per observation and layer over its measured matrices, (n, layers); NaN where none was."""
        squares = norms.values[:, self.members].astype(np.float64) ** 2
        known = np.isfinite(squares)
        total = self._add(np.where(known, squares, 0.0))
        count = self._add(known * self._sizes)
        unknown = np.full(total.shape, np.nan)
        mean: Rows = np.divide(total, count, out=unknown, where=count > 0)
        return np.sqrt(mean)

    def largest(self, values: npt.NDArray[np.float32]) -> Rows:
        """Largest measured value per observation and layer, (n, layers); −1 where none was measured."""
        result = np.full((len(self.places), len(values)), -1.0)
        mine = values[:, self.members]
        np.maximum.at(result, self.owner, np.where(np.isfinite(mine), mine, -1.0).T)
        return result.T

    def _add(self, values: Rows) -> Rows:
        result = np.zeros((len(self.places), len(values)))
        np.add.at(result, self.owner, values.T)
        return result.T


def _is_idle(history: History, limits: Limits) -> bool:
    """The learning rate has decayed away, or the loss is at its floor."""
    return lr_is_low(history, limits.lr_share) or is_converged(history, limits.converged_share)


def _vanished(history: History, layers: _Layers, gradient: Rows, limits: Limits) -> npt.NDArray[np.bool_]:
    """Both triggers per interval and layer; exact zeros are cut off, which is another fault."""
    vanished = (gradient < limits.rms) & (gradient > 0)
    weight = layers.rms(history.interval_columns("weight_norms", len(gradient)))[:, :1]
    if len(layers.places) > 1 and len(weight) == len(gradient):
        first, last = gradient[:, 0], gradient[:, -1]
        small = first < limits.gradient_to_weight * weight[:, 0]
        vanished[:, 0] |= (first > 0) & (first < limits.first_to_last * last) & small
    return vanished


def _stands_still(history: History, layers: _Layers, count: int, limits: Limits) -> npt.NDArray[np.bool_]:
    """Whether a layer's matrices hardly moved, per interval and layer; where that is unknown they did."""
    still = np.zeros((count, len(layers.places)), np.bool_)
    if not limits.update_ratio:
        return ~still
    largest = layers.largest(history.interval_columns("update_ratios", count).values)
    still[count - len(largest) :] = (largest >= 0) & (largest < limits.update_ratio)
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
    history: History,
    layers: _Layers,
    gradient: Rows,
    vanished: npt.NDArray[np.bool_],
    now: npt.NDArray[np.int64],
    limits: Limits,
) -> Finding:
    place = int(now[0])
    ends = history.interval_columns("grad_norms", len(gradient)).steps
    value, last = float(gradient[-1, place]), float(gradient[-1, -1])
    names = ", ".join(layers.names[i] for i in now[1 : 1 + _NAMED])
    others = f" So it is in {len(now) - 1} more layers ({names})." if len(now) > 1 else ""
    return Finding(
        title=f"Gradient RMS {number(value)} in {layers.names[place] or 'the model'}: it hardly learns",
        since_step=onset(history, ends, vanished[:, place]),
        detail=f"The last layer's is {number(last)}; so it was in {limits.intervals} intervals.{others}",
        layer=layers.names[place],
        metric="grad_norms",
        value=value,
        threshold=limits.rms,
    )


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
