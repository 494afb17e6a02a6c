"""Weight matrices among the parameters: what of a layer is judged by its size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

Rows = npt.NDArray[np.float64]


def matrices(layout: Layout) -> npt.NDArray[np.bool_]:
    """Trained parameters with two axes or more: not biases, not the gains of norms, not single tokens."""
    return np.array(
        [
            p.trainable and p.optimizer is not None and sum(n > 1 for n in p.shape) > 1
            for p in layout.parameters
        ],
        np.bool_,
    )


def reference_norms(history: History, layout: Layout) -> Rows:
    """What a parameter's norm is compared with: the largest of three, so that a zero start explains itself.

    Its first norm; the median of the first norms of parameters of its shape; the norm that a usual
    initialisation of its fan-in (its last axes) would give: an rms of 1/√(3·fan-in), torch's own default for
    Linear and Conv layers.
    """
    first = history.first_column("weight_norms").astype(np.float64)
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, p in enumerate(layout.parameters):
        groups.setdefault(tuple(p.shape), []).append(i)
    typical = np.empty(len(first))
    for shape, members in groups.items():
        known = first[members][np.isfinite(first[members])]
        usual = math.sqrt(math.prod(shape) / (3 * max(1, math.prod(shape[1:]))))
        typical[members] = max(usual, float(np.median(known)) if known.size else 0.0)
    return np.fmax(first, typical)
