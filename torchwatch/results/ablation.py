"""Result of ablation: how much worse the model is without each part of its input, and without each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]
Kind = Literal["element", "window", "patch", "group", "module"]


@dataclass(frozen=True, slots=True)
class AxisAblation:
    """Importance of everything along one axis, of groups of channels, or of the model's blocks.

    Attributes:
        axis: name of the input's axis; ``height×width`` for patches, ``module`` for blocks of the model.
        kind: ``element``: each channel or feature by itself; ``window``: stretches of an axis; ``patch``:
            rectangles of an image; ``group``: named groups of channels; ``module``: blocks of the model.
        elements: name of each.
        importance: change of the error without it (n,), in the unit of the error; positive where the model
            needs it, NaN where it was not tested.
        interval: 95 % interval of the importance (n, 2), over samples and repeats.
        ranking: places of those that were tested, most important first.
        fill: what was put in their place: ``permutation``, ``mean``, ``noise`` or ``zero``.
        repeats: how many draws of the fill each was tested with (n,); 0 where it was not tested.
        windows: half-open ranges along the axis; None for other kinds.
        patches: (first row, last row + 1, first column, last column + 1) of each patch, row by row; None for
            other kinds.
        grid: rows and columns of patches; None for other kinds.
        rate: bins per second along a time axis; None where it is unknown.
        peak: place of the most important window or patch; None for other kinds, and where none was tested.
    """

    axis: str
    kind: Kind
    elements: tuple[str, ...]
    importance: Floats
    interval: Floats
    ranking: tuple[int, ...]
    fill: str
    repeats: np.ndarray[Any, np.dtype[np.int64]]
    windows: tuple[tuple[int, int], ...] | None = None
    patches: tuple[tuple[int, int, int, int], ...] | None = None
    grid: tuple[int, int] | None = None
    rate: float | None = None
    peak: int | None = None

    @property
    def untested(self) -> int:
        """How many were not tested, or gave an error that is no number."""
        return int(np.isnan(self.importance).sum())

    @property
    def covers_zero(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each interval covers 0 (n,); what was not tested counts as covering it."""
        low, high = self.interval[:, 0], self.interval[:, 1]
        return np.asarray(~((low > 0) | (high < 0)))


@dataclass(frozen=True, slots=True)
class Ablation:
    """Importance of what the model sees and of what it is made of.

    Attributes:
        axis: name of the first part's axis: channels or features where there are any.
        importance: of the first part (n,).
        interval: of the first part (n, 2).
        ranking: of the first part.
        parts: all of them, the first included.
        baseline: mean error with nothing ablated.
        metric: name of the error: ``mean squared error``, or ``negative log-likelihood`` (nats).
        fill: what is put in the place of inputs.
        repeats: draws of the fill per element, as asked for.
        samples: how many samples were used.
        batch: samples per forward pass that were found fastest.
        shortcut: name of the first layer whose output was changed instead of the input; empty where the
            whole model ran each time.
        remarks: what there is to say.
    """

    axis: str
    importance: Floats
    interval: Floats
    ranking: tuple[int, ...]
    parts: tuple[AxisAblation, ...]
    baseline: float
    metric: str
    fill: str
    repeats: int
    samples: int
    batch: int
    shortcut: str = ""
    remarks: tuple[Remark, ...] = ()

    def part(self, kind: Kind, axis: str | None = None) -> AxisAblation | None:
        """The first part of a kind, of the axis where one is given; None where there is none."""
        found = (p for p in self.parts if p.kind == kind and axis in (None, p.axis))
        return next(found, None)
