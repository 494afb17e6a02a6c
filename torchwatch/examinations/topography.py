"""Topography: attribution and ablation at the places of the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.examinations._positions import positions_of
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.topography import Layer, Topography

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case
    from torchwatch.results.ablation import Ablation
    from torchwatch.results.attributions import Attributions

Floats = np.ndarray[Any, np.dtype[np.float64]]


def examine(case: Case) -> Topography:
    """Lay what is known of the channels onto their places.

    Raises:
        NotApplicable: no places, no channel axis, or neither attribution nor ablation of the channels.
        UsageError: places of another shape.
    """
    if case.inputs.positions is None:
        raise NotApplicable(
            "the places of the channels are not known: pass positions= (C, 2) or an MNE montage"
        )
    axis = next((a for a in ("channel", "feature") if a in case.axes), None)
    if axis is None:
        raise NotApplicable(f"the input has no axis named 'channel' among {case.axes}: name it with axes=")
    count = case.samples.inputs[case.main].shape[case.axes.index(axis) + 1]
    channels = tuple(case.names_along(axis, count))
    positions, source = positions_of(case.inputs.positions, channels)
    layers = [
        *_attribution(case.results.get("attributions"), axis, positions),
        *_ablation(case.results.get("ablation"), axis, positions),
    ]
    if not layers:
        raise NotApplicable("there is nothing to draw: examine attributions or ablation too")
    return Topography(channels, positions, source, tuple(layers), _remarks(channels, positions, layers))


def _attribution(result: Attributions | None, axis: str, positions: Floats) -> list[Layer]:
    if result is None:
        return []
    values = result.profile(axis).importance
    words = f"{result.primary.title}: sum of |attribution|"
    return [_layer("attribution", words, values, positions, signed=False)]


def _ablation(result: Ablation | None, axis: str, positions: Floats) -> list[Layer]:
    part = next((p for p in result.parts if p.axis == axis and p.kind == "element"), None) if result else None
    if result is None or part is None or len(part.importance) != len(positions):
        return []
    words = f"Ablation: rise of the {result.metric}"
    return [_layer("ablation", words, part.importance, positions, signed=True)]


def _layer(name: str, words: str, values: Floats, positions: Floats, *, signed: bool) -> Layer:
    weights = np.where(np.isfinite(values) & np.isfinite(positions).all(1), np.maximum(values, 0), 0.0)
    total = float(weights.sum())
    centre = (np.nan_to_num(positions) * weights[:, None]).sum(0) / total if total > 0 else np.full(2, np.nan)
    return Layer(
        name, words, np.asarray(values, dtype=np.float64), signed, (float(centre[0]), float(centre[1]))
    )


def _remarks(channels: tuple[str, ...], positions: Floats, layers: list[Layer]) -> tuple[Remark, ...]:
    said = []
    for layer in layers:
        finite = np.nonzero(np.isfinite(layer.values))[0]
        if finite.size and float(np.ptp(layer.values[finite])) > 0:
            top = finite[np.argsort(-layer.values[finite], kind="stable")[:3]]
            said.append(Remark("info", f"{layer.words} is highest at {', '.join(channels[i] for i in top)}."))
    without = [c for c, p in zip(channels, positions, strict=True) if not np.isfinite(p).all()]
    if without:
        names = ", ".join(without[:10]) + (f" and {len(without) - 10} more" if len(without) > 10 else "")
        said.append(Remark("warning", f"{len(without)} channels have no place and are not drawn: {names}."))
    return tuple(said)


EXAMINATION = Examination(
    title="Topography",
    examine=examine,
    tells="where on the sensors' plane the model looks",
    after=("ablation", "attributions"),
)
