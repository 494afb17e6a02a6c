"""Whose units an entry of ``dead_fraction`` or ``dormant_fraction`` speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torchwatch.records import LayerInfo, Layout

_RECTIFIERS = frozenset({
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus",
    "Hardswish", "Threshold", "Softshrink", "Hardshrink", "GLU",
})  # fmt: skip
_OTHER_ACTIVATIONS = frozenset({
    "Softsign", "Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Tanhshrink", "LogSigmoid", "Softmax",
    "LogSoftmax", "Softmin", "Softmax2d",
})  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A layer, the number of its units, where they were seen, and whether as a flattened image."""

    layer: str
    units: int | None
    detail: str
    flat: bool = False


def subject_of(
    layout: Layout, order: list[int], index: int, row: npt.NDArray[np.float32], *, final: bool = True
) -> Subject | None:
    """The layer whose units died or went dormant.

    None where the entry says nothing about units: a raw input, a final rectifier, another activation.

    Args:
        layout: the layers.
        order: their indices in call order.
        index: the layer of the entry.
        row: the observation of all layers.
        final: whether rectifiers at the end of the model are left out.
    """
    layer = layout.layers[index]
    if layer.order is None:
        return None
    place = order.index(index)
    before = [layout.layers[i] for i in reversed(order[:place])]
    if layer.type in _RECTIFIERS:
        if final and not any(layout.layers[i].parameters for i in order[place + 1 :]):
            return None
        feeder = next((x for x in before if x.parameters), None)
        fed = f"It is fed by {feeder.name or 'the model'} ({feeder.type})." if feeder else ""
        return Subject(layer.name, _units(layer.outputs, feeder), fed)
    if not _reads(layer):
        return None
    first = next(i for i in order if _reads(layout.layers[i]))
    # Inputs of one shape with the same silent features as the first layer's: it reads the raw input, too.
    raw = layout.layers[first].inputs[:1] == layer.inputs[:1] and bool(row[first] == row[index])
    return None if raw else _of_input(layer, before)


def _of_input(reader: LayerInfo, before: list[LayerInfo]) -> Subject | None:
    """The layer whose units a Linear or Conv layer reads; only where no activation module lies between."""
    width = _units(reader.inputs, reader)
    if width is None:
        return None
    for layer in before:
        if _is_activation(layer.type):
            return None
        units = _units(layer.outputs, layer) if layer.parameters else None
        if units is None or "Embedding" in layer.type:
            continue
        flat = "Linear" in reader.type and units != width and width % units == 0 and _is_image(layer)
        if units == width or flat:
            name = reader.name or "the model"
            return Subject(layer.name, units, f"Seen at the input of {name} ({reader.type}).", flat)
    return None


def _reads(layer: LayerInfo) -> bool:
    return "Linear" in layer.type or layer.type.startswith("Conv")


def _is_activation(kind: str) -> bool:
    return kind in _RECTIFIERS or kind in _OTHER_ACTIVATIONS or kind.endswith("Activation")


def _is_image(layer: LayerInfo) -> bool:
    return bool(layer.outputs) and len(layer.outputs[0]) > 2


def _units(shapes: list[list[int]], nearest: LayerInfo | None) -> int | None:
    """Channels of an image, else features (last axis), as the probe counts them; None for no such shape."""
    if not shapes or len(shapes[0]) < 2:
        return None
    shape = shapes[0]
    kind = nearest.type if nearest is not None else ""
    channels_first = (len(shape) != 3 and "Linear" not in kind) or kind.startswith(("Conv", "BatchNorm"))
    return shape[1] if len(shape) == 2 or channels_first else shape[-1]
