"""Most weights of a layer have become zero.

What it detects
    More than half of a weight matrix is near zero (at most 1e-6 of its rms; a matrix of zeros is all near
    zero) in two measurements, and it was not so from the start. A warning, "dead layer", where more than 90 %
    is and the layer puts out the same for every sample.

Why it matters
    Zero weights cost as much as others and do nothing. A dead layer blocks whatever lies behind it.

What to do
    Initialise a dead layer again, and look at weight decay, at L1 penalties and at what zeroed it. If
    sparsity is wanted, prune whole channels, which saves time as well.

When it is fine
    Pruned and masked layers are sparse from the start or on purpose: the first are not reported, the others
    only noted. Embeddings, of which many rows are never used, biases and gains are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up
from torchwatch.checks.activations._order import samples_and_features
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When weights are sparse, and when the layer is dead. A guard at 0 is off.

    Attributes:
        share: largest share of weights near zero (share).
        dead: share above which a layer with a constant output is dead (share).
        constant: largest standard deviation across the batch of such an output (share of its rms).
        observations: guard: measurements in a row (count).
        became: guard: 1 leaves out what was sparse from the start, unless the layer is dead (switch).
        warm_up: guard: 1 leaves out measurements within warm-up (switch).
    """

    share: float = 0.5
    dead: float = 0.9
    constant: float = 1e-3
    observations: int = 2
    became: int = 1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per layer, about its sparsest matrix."""
    layout, needed = history.layout, max(1, limits.observations)
    zeros = history.columns("weight_zero_fraction")
    start = after_warm_up(history, zeros.steps, limits.warm_up)
    if layout is None or len(zeros.steps) - start < needed:
        return NotReady(f"needs {needed} measurements after warm-up, {max(0, len(zeros.steps) - start)} seen")
    least = zeros.values[-needed:].min(axis=0)
    if not (least > limits.share).any():
        return []
    first = history.first_column("weight_zero_fraction")
    worst: dict[int, int] = {}
    for i in np.flatnonzero(least > limits.share).tolist():
        p = layout.parameters[i]
        if sum(n > 1 for n in p.shape) > 1 and "Embedding" not in layout.layers[p.layer].type:
            known = worst.get(p.layer)
            worst[p.layer] = i if known is None or least[i] > least[known] else known
    found = []
    for layer, i in worst.items():
        is_dead = least[i] > limits.dead and _is_constant(history, layout, layer, limits)
        if is_dead or not limits.became or not first[i] > limits.share:
            found.append(_finding(history, layout, i, least, limits, is_dead=is_dead))
    return found


def _is_constant(history: History, layout: Layout, layer: int, limits: Limits) -> bool:
    """Whether the layer puts out the same for every sample of a batch."""
    if samples_and_features(layout.layers[layer])[0] < 2:
        return False
    recent = history.columns("activations.batch_std", max(1, limits.observations)).values
    return bool(len(recent) and (recent[:, layer] < limits.constant).all())


def _finding(
    history: History,
    layout: Layout,
    index: int,
    least: npt.NDArray[np.float32],
    limits: Limits,
    *,
    is_dead: bool,
) -> Finding:
    parameter, zeros = layout.parameters[index], history.columns("weight_zero_fraction")
    threshold = limits.dead if is_dead else limits.share
    fine = np.flatnonzero(~(zeros.values[:, index] > threshold))
    share = float(least[index])
    name = layout.layers[parameter.layer].name
    title = f"{percent(share)} of {parameter.name} is zero"
    return Finding(
        title=f"Dead layer {name or '(the model itself)'}: {title}" if is_dead else title,
        since_step=int(zeros.steps[fine[-1] + 1 if fine.size else 0]),
        detail="It puts out the same for every sample." if is_dead else "",
        severity=Severity.WARNING if is_dead else Severity.INFO,
        layer=name,
        metric="weight_zero_fraction",
        value=share,
        threshold=threshold,
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ACTIVATIONS,
    cause=Cause.PARAMETER,
    when=frozenset({On.INTERVAL}),
    reads=("weight_zero_fraction",),
    uses=("activations.batch_std",),
    limits=Limits(),
    find=find,
    fix="Initialise the layer again, and look at weight decay and L1 penalties; or remove it.",
    snippet="layer.reset_parameters()",
)
