"""What band-stop ablation yields: how much worse the model is without each frequency band."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class FrequencyBands:
    """Importance of frequency bands along the time axis.

    Attributes:
        bands: names of the b bands.
        edges: lower and upper end of each (b, 2) in Hz.
        importance: rise of the mean error without the band (b,), in the unit of the error; NaN where it was
            not tested.
        interval: its 95 % bootstrap interval over the samples (b, 2); NaN where it was not tested.
        power: share of the input's power (about each channel's mean) that lies in the band (b,).
        ranking: places of the tested bands, most important first.
        baseline: mean error of the untouched samples.
        metric: name of the error, with its unit.
        axis: name of the time axis.
        sample_rate: Hz.
        resolution: distance of neighbouring frequencies of a sample (Hz).
        samples: how many samples were filtered.
        remarks: what there is to say.
    """

    bands: tuple[str, ...]
    edges: Floats
    importance: Floats
    interval: Floats
    power: Floats
    ranking: tuple[int, ...]
    baseline: float
    metric: str
    axis: str
    sample_rate: float
    resolution: float
    samples: int
    remarks: tuple[Remark, ...] = field(default=())
