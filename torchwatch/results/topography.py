"""Attribution and ablation on the plane of the sensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One quantity at every sensor.

    Attributes:
        name: ``attribution`` or ``ablation``.
        words: what it is, with its unit.
        values: at each sensor (C,); NaN where it was not measured.
        signed: whether negative values mean the opposite of positive ones.
        centre: value-weighted mean of the sensors' places (2,), negative values counted as 0; NaN where there
            is none.
    """

    name: str
    words: str
    values: Floats
    signed: bool
    centre: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Topography:
    """What lies where.

    Attributes:
        channels: names of the C sensors.
        positions: their places (C, 2), in the unit they were given in; NaN where it is not known.
        source: where the places come from, in words.
        layers: what is drawn.
        remarks: what there is to say.
    """

    channels: tuple[str, ...]
    positions: Floats
    source: str
    layers: tuple[Layer, ...]
    remarks: tuple[Remark, ...] = field(default=())
