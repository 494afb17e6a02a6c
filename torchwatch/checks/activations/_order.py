"""Layers in the order in which they were called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwatch.records import LayerInfo, Layout


def in_call_order(layout: Layout) -> list[int]:
    """Indices of the layers that were called, first to last."""
    called = [i for i, x in enumerate(layout.layers) if x.order is not None]
    return sorted(called, key=lambda i: layout.layers[i].order or 0)


def shape_of(layer: LayerInfo) -> list[int]:
    """Shape of the layer's first output, [] where it is not known."""
    return layer.outputs[0] if layer.outputs else []


def samples_and_features(layer: LayerInfo) -> tuple[int, int]:
    """Samples of the first output and entries per sample; 0 and 0 where its shape does not say."""
    shape = shape_of(layer)
    if len(shape) < 2:
        return 0, 0
    features = 1
    for size in shape[1:]:
        features *= size
    return shape[0], features
