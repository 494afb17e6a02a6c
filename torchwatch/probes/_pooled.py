"""From the moments of calls to the statistics of layers: all calls of a layer in a step are pooled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchwatch.probes._columns import fill
from torchwatch.probes._moments import MOMENTS
from torchwatch.records import Column, missing_column

Numbers = npt.NDArray[np.float64]


class Calls:
    """Calls of layers, one entry each, and sums over the calls of one layer.

    Args:
        layers: their indices.
        counts: entries of the output.
        samples: its first axis.
        limits: the largest number of its type where that is a low-precision one, else NaN.
        moments: (calls, 8), the columns of :data:`~torchwatch.probes._moments.MOMENTS`.
    """

    def __init__(
        self,
        layers: npt.NDArray[np.int64],
        counts: Numbers,
        samples: Numbers,
        limits: Numbers,
        moments: Numbers,
    ) -> None:
        self.layers, self.counts, self.samples, self.limits = layers, counts, samples, limits
        self.table = moments
        self._moments: dict[str, Numbers] = dict(zip(MOMENTS, moments.T, strict=True))
        self.named, self._places = np.unique(layers, return_inverse=True)
        self._single = len(self.named) == len(layers) and bool((self.named == layers).all())

    def moment(self, name: str) -> Numbers:
        """One moment of every call."""
        return self._moments[name]

    def sum(self, values: Numbers) -> Numbers:
        """Over the calls of each layer in ``named``."""
        return values if self._single else np.asarray(np.bincount(self._places, values), np.float64)

    def largest(self, values: Numbers) -> Numbers:
        """Over the calls of each layer in ``named``; NaN where one is."""
        if self._single:
            return values
        found = np.full(len(self.named), -np.inf)
        np.maximum.at(found, self._places, values)
        return found

    def per_call(self, values: Numbers) -> Numbers:
        """Values of the layers in ``named``, for each call."""
        return values[self._places]

    def only(self, which: npt.NDArray[np.bool_]) -> Calls:
        """Some of the calls."""
        if which.all():
            return self
        kept = (self.layers[which], self.counts[which], self.samples[which], self.limits[which])
        return Calls(*kept, self.table[which])

    def column(self, values: Numbers, width: int) -> Column:
        """The values of the layers in ``named`` as float32; MISSING for the other layers."""
        column = missing_column(width)
        fill(column, self.named, values)
        return column


def pooled(calls: Calls, width: int) -> dict[str, Column]:
    """Columns of ``width`` layers; see :data:`torchwatch.probes.activations.STATISTICS`."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return _level(calls, width) | _spread(calls, width) | _where_known(calls, width)


def _level(calls: Calls, width: int) -> dict[str, Column]:
    count = calls.sum(calls.counts)
    mean = calls.sum(calls.moment("total")) / count
    # Of a layer that was called once the second part is exactly 0.
    apart = calls.moment("total") / calls.counts - calls.per_call(mean)
    deviation = calls.sum(calls.moment("deviation") + calls.counts * apart**2)
    found = {
        "mean": mean,
        "std": np.sqrt(np.maximum(deviation, 0.0) / count),
        "rms": np.sqrt(calls.sum(calls.moment("square")) / count),
        "zero_fraction": calls.sum(calls.moment("zeros")) / count,
        "absmax": calls.largest(calls.moment("absmax")),
        "nonfinite": calls.sum(calls.moment("nonfinite")),
    }
    return {name: calls.column(values, width) for name, values in found.items()}


def _spread(calls: Calls, width: int) -> dict[str, Column]:
    """The mean over calls of the standard deviation across samples, over the rms of these calls."""
    several = calls.only(calls.samples > 1)
    rms = np.sqrt(several.sum(several.moment("square")) / several.sum(several.counts))
    unbiased = several.samples / (several.samples - 1)
    spreads = np.sqrt(np.maximum(several.moment("spread"), 0.0) / several.counts * unbiased)
    ratio = several.sum(spreads) / several.sum(np.ones_like(spreads)) / rms
    return {"batch_std": several.column(np.where(rms == 0, 0.0, ratio), width)}


def _where_known(calls: Calls, width: int) -> dict[str, Column]:
    """Statistics of some layers; left out where there is no such layer."""
    found = {}
    bounded = calls.only(~np.isnan(calls.moment("saturated")))
    if len(bounded.layers):
        share = bounded.sum(bounded.moment("saturated")) / bounded.sum(bounded.counts)
        found["saturated_fraction"] = bounded.column(share, width)
    low = calls.only(~np.isnan(calls.limits))
    if len(low.layers):
        found["headroom"] = low.column(low.largest(low.moment("absmax") / low.limits), width)
    return found
