"""What attributions inside the model yield: GradCAM, conductance, and attention rolled out to the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.results.attributions import AttributionMap, AxisProfile
from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class GradCam:
    """Where a convolution's channels speak for the explained output (Selvaraju et al. 2017).

    Attributes:
        layer: full name of the convolution.
        kind: its class.
        resolution: size of its own map, before it was brought to the input's.
        axes: names of the axes that the map is over; numbered where they are not the input's.
        profiles: sum of |map| along each of these axes (unit of the output per position).
        overview: mean map over the last two of these axes, others summed; one row where there is one axis.
    """

    layer: str
    kind: str
    resolution: tuple[int, ...]
    axes: tuple[str, ...]
    profiles: tuple[AxisProfile, ...]
    overview: AttributionMap

    @property
    def upsampled(self) -> bool:
        """Whether the map lies over the input."""
        return not any(a.startswith("map axis") for a in self.axes)


@dataclass(frozen=True, slots=True)
class Conductance:
    """How much of the change of the output flows through each unit of a layer (Dhamdhere et al. 2018).

    Attributes:
        layer: full name of the layer.
        kind: its class.
        flow: conductance of each unit, summed over places, mean over samples (u,); unit of the output.
        magnitude: the same of |conductance| of each sample (u,).
        ranking: units, largest magnitude first.
        silent: units whose conductance is exactly 0 in all samples.
        share: flow over the change of the output: 1 where everything passes through the layer, less where
            paths go around it; NaN where the output does not change.
    """

    layer: str
    kind: str
    flow: Floats
    magnitude: Floats
    ranking: tuple[int, ...]
    silent: int
    share: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """Attention multiplied through the layers, half of each step being the residual (Abnar & Zuidema 2020).

    Attributes:
        layers: names of the attention layers, from input to output.
        axis: name of the input's axis that the places are on; ``place`` where their number is another one.
        matrix: mean over samples of what each output place (row) draws from each input place (T, T); rows sum
            to 1.
        received: mean over output places (T,).
        causal: whether no place draws from later ones.
    """

    layers: tuple[str, ...]
    axis: str
    matrix: Floats
    received: Floats
    causal: bool


@dataclass(frozen=True, slots=True)
class LayerAttributions:
    """Attributions inside the model.

    Attributes:
        explained: the number that was explained, in words.
        baseline: what "nothing" was for the conductance, in words.
        samples: how many samples were used.
        signed: whether GradCAM's maps keep what speaks against the output; else only what speaks for it.
        gradcam: one for each chosen convolution, from input to output.
        conductance: one for each chosen layer, from input to output.
        rollout: None where there is no attention to roll out.
        not_run: what could not be run here, and why.
        sample_rate: of the time axis (Hz); None where it is not known.
        remarks: what there is to say.
    """

    explained: str
    baseline: str
    samples: int
    signed: bool
    gradcam: tuple[GradCam, ...] = ()
    conductance: tuple[Conductance, ...] = ()
    rollout: Rollout | None = None
    not_run: tuple[tuple[str, str], ...] = ()
    sample_rate: float | None = None
    remarks: tuple[Remark, ...] = field(default=())
