"""A layer puts out the same for every sample.

What it detects
    In three intervals in a row the standard deviation of a layer's output across the batch is below a
    thousandth of the output's own scale, and the centred outputs of two samples have a mean cosine above
    0.999. That cosine is measured on rare steps (``cosine``). In intervals without such a step the two
    spreads stand in for it: for outputs x = m + d with m the mean over the batch, the expected cosine of the
    centred vectors is 1 − var_batch/var_all, taken from ``batch_std`` and ``std``. Of a chain of collapsed
    layers only the first is named.

Why it matters
    What the layer says no longer depends on its input. Everything behind it can only learn a constant.

What to do
    Normalisation, a lower learning rate, a smaller initialisation; in contrastive training a term that
    pushes different samples apart.

When it is fine
    Outputs that do not depend on the sample by design: embeddings of positions or queries and what is
    computed from them. A layer therefore counts only if it once put out different things. Norm layers
    rescale whatever they get and are judged by their input. Outputs that are zero everywhere, and what is
    computed from dead units alone, belong to ``dead-units``.
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
    from torchwatch.records import LayerInfo, Layout

_SPREAD = 1e-2
"""Below this share of the rms, float32 sums cannot tell the whole spread from the batch's."""


@dataclass(frozen=True)
class Limits:
    """When a layer's output has collapsed. A guard at 0 is off.

    Attributes:
        batch_std: largest standard deviation across the batch, relative to the output's rms (ratio).
        cosine: least mean cosine of two samples' centred outputs (−1 to 1); 0 leaves it out.
        intervals: intervals in a row (count).
        samples: guard: least samples in a batch (samples).
        features: guard: least features of the output (features).
        once: guard: a layer counts only if its batch std once was this many times the limit (factor).
        dead_units: guard: share of dead units in a layer before that explains it (share); it also waits
            for the samples that ``dead-units`` needs to say so.
        warm_up: guard: 1 leaves out intervals that end within warm-up (switch).
    """

    batch_std: float = 1e-3
    cosine: float = 0.999
    intervals: int = 3
    samples: int = 8
    features: int = 16
    once: float = 10.0
    dead_units: float = 0.5
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per chain of collapsed layers."""
    layout = history.layout
    spread = history.interval_columns("activations.batch_std")
    start = np.searchsorted(spread.steps, history.warm_up_end(), side="right") if limits.warm_up else 0
    needed = max(1, limits.intervals)
    if layout is None or len(spread.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up")
    if not np.all(spread.values[-needed:] < limits.batch_std, axis=0).any():
        return []
    low = _low(history, len(spread.steps), limits)
    collapsed = np.logical_and.reduce(low[-needed:], axis=0)
    judged = [i for i in _first_of_chains(layout, collapsed) if _is_judged(layout.layers[i], limits)]
    if limits.dead_units:
        judged = [i for i in judged if not _waits_for_dead_units(history, layout, i, low, limits)]
    fell = [i for i in judged if not limits.once or _peak(history, i) >= limits.once * limits.batch_std]
    if not fell and any(low[:, i].all() for i in judged) and len(history.intervals) > len(spread.steps):
        return NotReady("collapsed for as long as intervals are remembered")
    return [_finding(history, layout.layers[i], i, low, limits) for i in fell]


def _low(history: History, count: int, limits: Limits) -> npt.NDArray[np.bool_]:
    """Collapsed or not, per interval and layer."""
    names = ("activations.batch_std", "activations.std", "activations.rms")
    batch, whole, scale = (history.interval_columns(n, count).values.astype(np.float64) for n in names)
    if not len(batch) == len(whole) == len(scale):
        return np.zeros(batch.shape, np.bool_)
    low = (batch < limits.batch_std) & (scale > 0)
    if limits.cosine:
        alike = (batch * scale) ** 2 <= (1 - limits.cosine) * whole**2
        expected = alike & ((whole >= _SPREAD * scale) | (whole == 0))
        cosine = _cosines(history, batch.shape)
        low &= np.where(np.isnan(cosine), expected, cosine >= limits.cosine)
    return low


def _cosines(history: History, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The measured cosine per interval and layer, NaN where none was."""
    cosine = np.full(shape, np.nan)
    measured = history.interval_columns("activations.cosine")
    ends = history.interval_columns("activations.batch_std", shape[0]).steps
    _, places, rows = np.intersect1d(ends, measured.steps, return_indices=True)
    cosine[places] = measured.values[rows]
    return cosine


def _first_of_chains(layout: Layout, collapsed: npt.NDArray[np.bool_]) -> list[int]:
    """Collapsed layers whose predecessor in call order has not collapsed."""
    called = sorted(
        (i for i, x in enumerate(layout.layers) if x.order is not None),
        key=lambda i: layout.layers[i].order or 0,
    )
    before = [None, *called[:-1]]
    return [
        i for i, b in zip(called, before, strict=True) if collapsed[i] and (b is None or not collapsed[b])
    ]


def _is_judged(layer: LayerInfo, limits: Limits) -> bool:
    if "Embedding" in layer.type or "Norm" in layer.type or not layer.outputs or len(layer.outputs[0]) < 2:
        return False
    shape = layer.outputs[0]
    features = shape[1] if len(shape) in (2, 4, 5) else shape[-1]
    return shape[0] >= limits.samples and features >= limits.features


def _waits_for_dead_units(
    history: History, layout: Layout, layer: int, low: npt.NDArray[np.bool_], limits: Limits
) -> bool:
    """Whether dead units upstream explain it, or their samples do not yet reach back to the onset.

    The entry of the layer that is called first speaks of the raw input and tells nothing.
    """
    shares = history.columns("activations.dead_fraction", 2).values
    if not len(shares):
        return False
    own = layout.layers[layer].order or 0
    raw = min(x.order for x in layout.layers if x.order is not None and x.parameters)
    upstream = [i for i, x in enumerate(layout.layers) if x.order is not None and raw < x.order <= own]
    if (shares[:, upstream] > limits.dead_units).any():
        return True
    sampled = history.columns("activations.batch_std").steps
    since = sampled[sampled >= _onset(history, layer, low)]
    samples = history.series("samples")
    if len(since) == len(sampled) or not len(samples.steps):
        return False
    window = history.header.config.get("dead_window_samples", 512)
    return bool(samples.values[np.isin(samples.steps, since[:-1])].sum() < window)


def _onset(history: History, layer: int, low: npt.NDArray[np.bool_]) -> int:
    """First step of the first interval of those that were low to the end."""
    ends = history.interval_columns("activations.batch_std").steps
    fine = np.flatnonzero(~low[:, layer])
    return int(ends[fine[-1]]) + 1 if fine.size else history.intervals[0].first_step


def _peak(history: History, layer: int) -> float:
    """Largest spread that is still remembered."""
    name = "activations.batch_std"
    seen = np.concatenate(
        [history.interval_columns(name).values[:, layer], history.columns(name).values[:, layer]]
    )
    return float(np.fmax.reduce(seen))


def _finding(
    history: History, layer: LayerInfo, index: int, low: npt.NDArray[np.bool_], limits: Limits
) -> Finding:
    spread = history.interval_columns("activations.batch_std")
    value = float(spread.values[-1, index])
    name = layer.name or "The model"
    return Finding(
        title=f"{name} puts out the same for every sample: batch std {number(value)} of its rms",
        since_step=_onset(history, index, low),
        detail=f"{limits.intervals} intervals in a row; it once was {number(_peak(history, index))}."
        f"{_cosine_words(history, index, _onset(history, index, low))}",
        layer=layer.name,
        metric="activations.batch_std",
        value=value,
        threshold=limits.batch_std,
    )


def _cosine_words(history: History, index: int, since: int) -> str:
    """The last cosine that was measured since."""
    column = history.columns("activations.cosine")
    values = column.values[column.steps >= since, index]
    values = values[np.isfinite(values)]
    return f" Mean cosine of two samples {number(float(values[-1]))}, measured." if values.size else ""


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.batch_std", "activations.std", "activations.rms"),
    uses=("activations.cosine", "activations.dead_fraction", "samples"),
    limits=Limits(),
    find=find,
    fix="Add normalisation, lower the learning rate; in contrastive training push different samples apart.",
    snippet="nn.LayerNorm(features)",
)
