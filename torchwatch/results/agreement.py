"""What agreement yields: whether ablation and attribution name the same parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class AxisAgreement:
    """Ablation against attribution along one axis.

    Attributes:
        axis: name of the axis.
        kind: ``element`` or ``window``, as it was ablated.
        elements: names of the n elements that both know.
        ablation: importance by ablation (n,), in the unit of the error; NaN where it was not tested.
        attribution: importance by attribution (n,), summed over each window.
        correlation: Spearman's over the n elements; NaN where it has no value (fewer than three elements that
            were tested, or all alike).
        interval: its 95 % interval (2,).
        tested: how many elements were compared.
        ablation_only: elements among the top of ablation that are in the lower half of attribution.
        attribution_only: elements among the top of attribution that are in the lower half of ablation.
    """

    axis: str
    kind: str
    elements: tuple[str, ...]
    ablation: Floats
    attribution: Floats
    correlation: float
    interval: tuple[float, float]
    tested: int
    ablation_only: tuple[str, ...] = ()
    attribution_only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether two ways to ask agree. They ask different things: both can be right.

    Attributes:
        axes: one for each axis that both looked at.
        method: the attribution method that was compared with ablation.
        methods: names of all attribution methods (m,).
        between: Spearman's correlation of the methods' profiles with one another (m, m), mean over the axes
            with three elements or more; NaN where it has no value.
        metric: name of the ablation's error.
        remarks: what there is to say.
    """

    axes: tuple[AxisAgreement, ...]
    method: str
    methods: tuple[str, ...]
    between: Floats
    metric: str
    remarks: tuple[Remark, ...] = field(default=())
