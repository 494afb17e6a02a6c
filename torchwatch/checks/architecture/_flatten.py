"""Where a flattened map of convolutions enters a Linear layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torchwatch.history.kinds import called, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.records import LayerInfo, Layout

_LEAST_POSITIONS = 4


def flattened(layout: Layout) -> list[tuple[LayerInfo, int]]:
    """Every Linear layer that reads a flattened map, with the number of positions of that map."""
    order = called(layout)
    found = []
    for place, layer in enumerate(order):
        features = whole(layer, "in_features")
        given = layer.inputs[0] if layer.inputs else []
        if features is not None and len(given) == 2 and given[1] == features:
            positions = _positions(order[:place], features)
            if positions > 1:
                found.append((layer, positions))
    return found


def _positions(before: Sequence[LayerInfo], features: int) -> int:
    """Places of the map that ended up as these features; 1 where there was no map, or it was pooled to one.

    The nearest layer before whose output is a map decides: either it holds as many numbers as there are
    features, or a function between (a pooling that is no module) changed its size, but kept its channels.
    """
    for layer in reversed(before):
        shape = layer.outputs[0] if layer.outputs else []
        numbers = math.prod(shape[1:])
        if len(shape) > 2:
            positions, rest = divmod(features, shape[1])
            resized = rest == 0 and positions >= _LEAST_POSITIONS
            return positions if numbers == features or resized else 1
        if numbers != features:
            return 1
    return 1
