"""What the plots draw: the curves and layer maps of a run, reduced to a size that a screen can show.

A curve of a million steps becomes about a thousand buckets, each with its minimum, mean and maximum, so
that a spike of one step is still there. Values measured as NaN or infinite are kept apart as *bad* steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUCKETS = 1200
"""Most points of a drawn curve: about one per pixel of the plot."""

MAP_BINS = 160
"""Most time bins of a layer map."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One scalar over the steps.

    ``steps``, ``mean``, ``low`` and ``high`` have one entry per bucket (NaN where nothing finite was
    measured); ``bad`` are steps at which NaN or an infinity was measured; ``count`` is how many values were
    measured; ``thinned`` whether a bucket stands for several steps.
    """

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats
    bad: Ints
    count: int
    thinned: bool = False

    @property
    def drawable(self) -> bool:
        """Whether there is anything to see: a finite value or a bad step."""
        return bool(len(self.bad) or np.isfinite(self.mean).any())


@dataclass(frozen=True, slots=True)
class LayerMap:
    """One number per layer and time bin.

    ``values`` is (layers, bins): NaN where nothing was measured; ``bad`` (same shape) is where NaN or an
    infinity was measured. ``edges`` (bins + 1) are steps. ``total`` counts the layers measured before the
    cut to the worst.
    """

    names: tuple[str, ...]
    edges: Floats
    values: Floats
    bad: npt.NDArray[np.bool_]
    total: int

    def rows(self, keep: list[int]) -> LayerMap:
        """Only these rows, in this order."""
        names = tuple(self.names[i] for i in keep)
        return LayerMap(names, self.edges, self.values[keep], self.bad[keep], self.total)


@dataclass(frozen=True, slots=True)
class Points:
    """Measured points: ``at`` steps (or seconds) and ``values``, NaN and infinities included."""

    at: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything the plots draw. A name that was not measured is not in its mapping.

    ``curves``: step scalars (``loss``, ``lr``, ``grad_norm``, ``grad_norm_preclip``, ``update_ratio``)
    and ``metrics.<name>``. ``smooth``: the loss's moving median over ``window`` steps. ``evals``: metrics of
    evaluations. ``intervals``: fields of interval records at their last step. ``systems``: fields of system
    records over seconds. ``maps``: ``gradients`` (RMS of a layer's gradients), ``updates`` (‖Δw‖/‖w‖),
    ``dead`` and ``zero`` (fractions).
    """

    last_step: int = 0
    curves: dict[str, Curve] = field(default_factory=dict)
    smooth: Points | None = None
    window: int = 1
    evals: dict[str, Points] = field(default_factory=dict)
    intervals: dict[str, Points] = field(default_factory=dict)
    systems: dict[str, Points] = field(default_factory=dict)
    maps: dict[str, LayerMap] = field(default_factory=dict)


def curve(steps: Ints, values: Floats, buckets: int = BUCKETS) -> Curve:
    """Reduce a scalar to at most ``buckets`` points; a NaN or infinity in ``values`` was measured as such."""
    finite = np.isfinite(values)
    bad = np.asarray(steps[~finite], np.int64)
    x, y = np.asarray(steps[finite], np.float64), values[finite]
    if len(x) <= buckets:
        return Curve(x, y, y, y, bad, len(values))
    starts = np.linspace(0, len(x), buckets, endpoint=False).astype(np.int64)
    sizes = np.diff(np.append(starts, len(x)))
    low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    at, mean = np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes
    return Curve(at, mean, low, high, bad, len(values), thinned=True)


def moving_median(steps: Ints, values: Floats, window: int) -> Points:
    """Median of the finite values in a centred window of ``window`` steps, at up to :data:`BUCKETS` points.

    A median, because a mean would begin to rise half a window before a jump.
    """
    finite = np.isfinite(values)
    x, y = np.asarray(steps[finite], np.float64), values[finite]
    if not len(x):
        return Points(x, y)
    at = np.unique(np.linspace(0, len(x) - 1, min(len(x), BUCKETS)).astype(np.int64))
    start = np.maximum(at - window // 2, 0)
    stop = np.minimum(at + (window + 1) // 2, len(x))
    return Points(x[at], np.array([np.median(y[a:b]) for a, b in zip(start, stop, strict=True)]))


def layer_map(
    names: tuple[str, ...], steps: Ints, values: Floats, bad: npt.NDArray[np.bool_], last_step: int
) -> LayerMap | None:
    """Bin observations (n, layers) into at most :data:`MAP_BINS` medians; None if nothing was seen.

    Args:
        names: one per column of ``values``.
        steps: (n,) rising.
        values: (n, layers), NaN where not measured or bad.
        bad: (n, layers), where NaN or an infinity was measured.
        last_step: of the run; no bin reaches beyond it.
    """
    seen = np.asarray((np.isfinite(values) | bad).any(axis=0), np.bool_)
    if not seen.any():
        return None
    groups = np.array_split(np.arange(len(steps)), min(len(steps), MAP_BINS))
    binned = np.stack([_median(values[g][:, seen]) for g in groups], axis=1)
    bad_bins = np.stack([bad[g][:, seen].any(axis=0) for g in groups], axis=1)
    kept = tuple(n for n, s in zip(names, seen, strict=True) if s)
    edges = _edges([int(steps[g[0]]) for g in groups], int(steps[-1]), last_step)
    return LayerMap(kept, edges, binned, bad_bins, len(kept))


def _median(values: Floats) -> Floats:
    """Column medians that ignore NaN and are silent where a column has nothing else."""
    ordered = np.sort(values, axis=0)
    count = np.isfinite(values).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    columns = np.arange(values.shape[1])
    high = np.minimum(high, len(values) - 1)
    return np.asarray((ordered[low, columns] + ordered[high, columns]) / 2, np.float64)


def _edges(starts: list[int], last: int, last_step: int) -> Floats:
    """Bin edges in steps; the last bin is as wide as the bins are on average, but ends with the run."""
    width = max(1, (starts[-1] - starts[0]) // max(1, len(starts) - 1))
    end = max(last, min(starts[-1] + width - 1, last_step))
    return np.array([*starts, end + 1], np.float64) - 0.5
