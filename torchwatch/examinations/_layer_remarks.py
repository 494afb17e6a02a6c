"""What layer attributions have to say, in sentences."""

from __future__ import annotations

import dataclasses

from torchwatch.examinations._attribution_remarks import place
from torchwatch.results import Remark
from torchwatch.results.layer_attributions import Conductance, LayerAttributions
from torchwatch.text import percent

_MOSTLY_SILENT = 0.5
_NAMED = 3


def remarks_on(result: LayerAttributions) -> LayerAttributions:
    """The result with its remarks."""
    said = [*_maps(result), *_units(result), *_rollout(result)]
    return dataclasses.replace(result, remarks=tuple(said))


def _maps(result: LayerAttributions) -> list[Remark]:
    said = []
    for cam in result.gradcam:
        if not float(cam.overview.magnitude.sum()) > 0:
            said.append(_empty(result, cam.layer))
            continue
        if not cam.upsampled:
            continue
        peaks = ", ".join(f"`{p.axis}` {place(p, p.ranking[0], result.sample_rate)}" for p in cam.profiles)
        said.append(Remark("info", f"GradCAM of `{cam.layer}` peaks at {peaks}."))
    return said


def _empty(result: LayerAttributions, layer: str) -> Remark:
    if result.signed:
        text = f"GradCAM of `{layer}` is 0 everywhere: the output does not depend on this layer."
        return Remark("warning", text, "Look for dead units behind it: see activations.")
    text = f"GradCAM of `{layer}` is 0 everywhere: nothing in it speaks for the predicted classes."
    return Remark("info", text)


def _units(result: LayerAttributions) -> list[Remark]:
    said = []
    for layer in result.conductance:
        count = len(layer.magnitude)
        if layer.silent == count:
            text = f"Nothing of the input's change passes through `{layer.layer}`: it is not on its way."
            said.append(Remark("info", text))
        elif layer.silent > _MOSTLY_SILENT * count:
            text = f"{layer.silent} of {count} units of `{layer.layer}` carry nothing to the output, ever."
            said.append(
                Remark("warning", text, "Look at activations for dead units in or behind this layer.")
            )
        elif float(layer.magnitude.sum()) > 0:
            said.append(Remark("info", _carriers(layer)))
    return said


def _carriers(layer: Conductance) -> str:
    count = min(_NAMED, len(layer.ranking))
    share = float(layer.magnitude[list(layer.ranking[:count])].sum() / layer.magnitude.sum())
    units = ", ".join(str(u) for u in layer.ranking[:count])
    return (
        f"{percent(share)} of the conductance of `{layer.layer}` is that of {count} of its "
        f"{len(layer.ranking)} units ({units})."
    )


def _rollout(result: LayerAttributions) -> list[Remark]:
    if result.rollout is None:
        return []
    found = result.rollout
    order = found.received.argsort()[::-1][:_NAMED]
    places = ", ".join(f"{i} ({percent(found.received[i])})" for i in order)
    text = (
        f"Rolled out through {len(found.layers)} attention layers, most attention goes to `{found.axis}` "
        f"{places}; evenly spread it would be {percent(1 / len(found.received))} each."
    )
    return [Remark("info", text)]
