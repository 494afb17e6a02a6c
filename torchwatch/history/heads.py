"""Entropy of attention heads: the first value of each, and the last ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.history.columns import Columns, Ring
from torchwatch.records import Attention, missing_column

OBSERVATIONS = 32
"""Observations of a head that are kept."""

_MOST_NAMES = 512
_MOST_HEADS = 256


class Heads:
    """Entropies of the heads of one attention, over the logarithm of the number of valid keys (0 to 1).

    Attributes:
        first: each head's first finite entropy, MISSING where it has none.
        first_step: the first step at which any was measured.
    """

    def __init__(self, heads: int, step: int) -> None:
        self.first = missing_column(heads)
        self.first_step = step
        self._ring = Ring(OBSERVATIONS, heads)

    @property
    def count(self) -> int:
        """Number of heads."""
        return self._ring.width

    def last(self, count: int | None = None) -> Columns:
        """The last observations, (n, heads); NaN where a head had no row with two valid keys."""
        return self._ring.last(count)

    def put(self, step: int, entropy: npt.NDArray[np.float32]) -> None:
        """Append one observation."""
        self._ring.put(step, entropy)
        fresh = ~np.isfinite(self.first) & np.isfinite(entropy)
        self.first[fresh] = entropy[fresh]


class Attentions:
    """The heads of every attention by its name; one whose number of heads changes starts anew."""

    def __init__(self) -> None:
        self.layers: dict[str, Heads] = {}

    def take(self, record: Attention) -> None:
        """Take in one record; what is no list of numbers (a hand-edited file) is left out."""
        layers = record.data.get("layers")
        for layer in layers if isinstance(layers, list) else ():
            if isinstance(layer, Mapping):
                self._take(record.step, str(layer.get("name", "")), layer.get("entropy"))

    def _take(self, step: int, name: str, entropy: Any) -> None:
        if not isinstance(entropy, list) or not 0 < len(entropy) <= _MOST_HEADS:
            return
        known = self.layers.get(name)
        if known is None or known.count != len(entropy):
            if known is None and len(self.layers) >= _MOST_NAMES:
                return
            known = self.layers[name] = Heads(len(entropy), step)
        numbers = [v if isinstance(v, (int, float)) else np.nan for v in entropy]
        known.put(step, np.array(numbers, np.float32))
