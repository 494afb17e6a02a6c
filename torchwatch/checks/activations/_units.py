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
    layout: Layout, index: int, row: npt.NDArray[np.float32], *, final: bool = True
) -> Subject | None:
    """The layer whose units died or went dormant; ``final`` leaves out rectifiers at the end of the model.

    None where the entry says nothing about units: a raw input, a final rectifier, another activation.
    """
    layer = layout.layers[index]
    if layer.order is None:
        return None
    before = sorted((x for x in layout.layers if _is_before(x, layer)), key=lambda x: -(x.order or 0))
    if _is_rectifier(layer.type):
        behind = any(x.parameters and _is_before(layer, x) for x in layout.layers)
        if final and not behind:
            return None
        feeder = next((x for x in before if x.parameters), None)
        fed = f"It is fed by {feeder.name or 'the model'} ({feeder.type})." if feeder else ""
        return Subject(layer.name, _units(layer.outputs, feeder), fed)
    return _of_input(layout, layer, before, row, float(row[index])) if _reads(layer) else None


def _of_input(
    layout: Layout, reader: LayerInfo, before: list[LayerInfo], row: npt.NDArray[np.float32], share: float
) -> Subject | None:
    """The layer whose units a Linear or Conv layer reads; only where no activation module lies between."""
    width = _input_units(reader)
    if width is None or _reads_raw_input(layout, reader, row, share):
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


def _reads_raw_input(layout: Layout, reader: LayerInfo, row: npt.NDArray[np.float32], share: float) -> bool:
    """Whether it reads what the first layer reads: inputs of the same shape with the same silent features."""
    first = min(
        (i for i, x in enumerate(layout.layers) if _reads(x)), key=lambda i: layout.layers[i].order or 0
    )
    return layout.layers[first].inputs[:1] == reader.inputs[:1] and bool(row[first] == np.float32(share))


def _reads(layer: LayerInfo) -> bool:
    return layer.order is not None and ("Linear" in layer.type or layer.type.startswith("Conv"))


def _is_before(layer: LayerInfo, other: LayerInfo) -> bool:
    return layer.order is not None and other.order is not None and layer.order < other.order


def _is_rectifier(kind: str) -> bool:
    return kind in _RECTIFIERS


def _is_activation(kind: str) -> bool:
    return kind in _RECTIFIERS or kind in _OTHER_ACTIVATIONS or kind.endswith("Activation")


def _is_image(layer: LayerInfo) -> bool:
    return bool(layer.outputs) and len(layer.outputs[0]) > 2


def _input_units(reader: LayerInfo) -> int | None:
    return _units(reader.inputs, reader)


def _units(shapes: list[list[int]], nearest: LayerInfo | None) -> int | None:
    """Channels of an image, else features (last axis), as the probe counts them; None for no such shape."""
    if not shapes or len(shapes[0]) < 2:
        return None
    shape = shapes[0]
    kind = nearest.type if nearest is not None else ""
    channels_first = (len(shape) != 3 and "Linear" not in kind) or kind.startswith(("Conv", "BatchNorm"))
    return shape[1] if len(shape) == 2 or channels_first else shape[-1]
