"""Where non-finite entries of a parameter column began."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.records import Layout, is_missing

if TYPE_CHECKING:
    from torchwatch.history import History


def origin(
    layout: Layout, row: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_]
) -> tuple[str, str] | None:
    """Layer and parameter in which the bad entries of a parameter column began, None where all are bad.

    Backward runs from the last layer to the first and hands a NaN on to everything before it, so among the
    bad parameters the one whose layer was called last is the origin. Where every measured parameter of more
    than one layer is bad, the NaN came in from above, with the loss, and no layer can be named.
    """
    measured = np.flatnonzero(~is_missing(row))
    places = np.flatnonzero(bad)
    if not len(places) or max(len(row), int(measured[-1]) + 1) > len(layout.parameters):
        return None
    layers = {layout.parameters[i].layer for i in measured}
    if len(places) == len(measured) and len(layers) > 1:
        return None
    last = max(places, key=lambda i: (_call_order(layout, layout.parameters[i].layer), -int(i)))
    parameter = layout.parameters[last]
    return layout.layers[parameter.layer].name, parameter.name


def _call_order(layout: Layout, layer: int) -> tuple[int, int]:
    """Place in the forward pass; a layer that was never called as a module goes before all others."""
    order = layout.layers[layer].order
    return (-1 if order is None else order, layer)


def elements(history: History, counts: str, step: int, bad: npt.NDArray[np.bool_]) -> str:
    """How many elements of the bad entries are not finite, as a sentence; "" where they were not counted.

    Args:
        history: the records.
        counts: "grad_nonfinite" or "weight_nonfinite"; off the CPU a 1 stands for "some".
        step: the step of the bad entries.
        bad: (parameters,) which entries are bad.
    """
    column = history.columns(counts)
    place = np.flatnonzero(column.steps == step)
    counted = column.values[place[-1]][bad] if place.size else column.values[:0]
    if not counted.size or is_missing(counted).any():
        return ""
    if not counted.any():
        return "Every single element is finite: it is the sum of their squares that overflowed."
    return f"{int(counted.sum())} of their elements are not finite." if counted.max() > 1 else ""
