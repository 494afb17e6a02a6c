"""A batch norm sees fewer than four values per channel.

What it detects
    In three watched steps in a row a batch norm in training mode was given fewer than four values per
    channel (samples times positions). One finding names up to five; its layer is the first.

Why it matters
    Mean and variance of so few values are mostly noise: the output of a sample depends on which others
    are with it in the batch, and what is learnt does not fit the running statistics that are used in
    evaluation.

What to do
    A larger batch (accumulation does not help: each pass has statistics of its own), GroupNorm or
    LayerNorm, or the norm in evaluation mode where the statistics of pretraining are good.

When it is fine
    The last batch of an epoch may be small. Such steps do not count, also where every sampled step happens
    to be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.wiring._map import (
    LATER,
    in_force,
    indices,
    is_due,
    left_out,
    listed,
    looked,
    looks,
    onset,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a batch counts as too small. A guard at 0 is off.

    Attributes:
        looks: watched steps in a row (steps).
        values: values per channel below which it counts (count, at most 4: more are not noted).
        period: guard: 1 says nothing while every look may have met the last batch of an epoch (switch).
    """

    looks: int = 3
    values: int = 4
    period: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding that names all of them."""
    state, layout = in_force(history), history.layout
    if state is None or layout is None:
        return NotReady("not watched yet")
    if not state.get("small_batch_norms"):
        return []
    since = onset(history, _is_small)
    if not is_due(history, since):
        return LATER
    if looks(history, since) < max(1, limits.looks) or (limits.period and _comes_round(history, since)):
        return []
    values = dict(zip(state["small_batch_norms"], state.get("small_batch_values", ()), strict=False))
    few = {i: values[i] for i in indices(list(values), len(layout.layers)) if values[i] < limits.values}
    if not few:
        return []
    layers = sorted(few, key=lambda i: (layout.layers[i].order is None, layout.layers[i].order or 0, i))
    more, least = left_out(state, "small_batch_norms"), min(few.values())
    count = len(few) + more
    return [
        Finding(
            title=f"{count} batch norm{'s see' if count > 1 else ' sees'} {least} "
            f"value{'s' if least > 1 else ''} per channel",
            since_step=since,
            detail=f"{listed([layout.layers[i].name for i in layers], more)}, in training mode.",
            layer=layout.layers[layers[0]].name,
            metric="values_per_channel",
            value=float(least),
            threshold=float(limits.values),
        )
    ]


def _is_small(state: Mapping[str, Any]) -> bool:
    return bool(state.get("small_batch_norms"))


def _comes_round(history: History, since: int) -> bool:
    """Whether every look since then may have met the last batch of an epoch.

    That takes an epoch whose length divides all distances between the looks. A large batch at such a distance
    before them, or two looks at consecutive steps, exclude it.
    """
    steps = looked(history)
    run = steps[np.searchsorted(steps, since) :]
    distance = int(np.gcd.reduce(np.diff(run))) if run.size > 1 else 0
    if distance == 1:
        return False
    large = 0
    for stretch in history.stretches("wiring"):
        if stretch.first >= since:
            break
        large = 0 if _is_small(stretch.value) else large or stretch.first
    before = steps[np.searchsorted(steps, large or since) : np.searchsorted(steps, since)]
    return not (distance and ((since - before) % distance == 0).any())


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("wiring",),
    uses=("weight_norms", "optimizer_s"),
    limits=Limits(),
    find=find,
    fix="Use a larger batch, or GroupNorm, which does not look at the other samples.",
    snippet="nn.GroupNorm(num_groups=8, num_channels=channels)  # instead of nn.BatchNorm2d(channels)",
    resolve_after=10,
)
