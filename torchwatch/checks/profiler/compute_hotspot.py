"""One layer takes a large part of the time.

What it detects
    In a profiler window one leaf layer has 40 % or more of all layers' self time, forward and backward
    together, in a model with at least five of them. Windows are opened with ``profile_every`` or
    ``watch.profile()``.

Why it matters
    Making anything else faster is of little use: this layer decides how long a step takes.

What to do
    A smaller input to it (stride, pooling before it), grouped or depthwise-separable convolutions, a smaller
    vocabulary or a sampled softmax where it is the output layer, a fused kernel (``torch.compile``,
    ``scaled_dot_product_attention``).

When it is fine
    A layer that is meant to do the work: the one large matrix of a linear model, the head of a language model
    with a large vocabulary. It is a place to look at, not a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.profiler._window import latest
from torchwatch.text import duration, percent

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a layer is a hotspot.

    Attributes:
        share: least share of all layers' self time (share).
        layers: least leaf layers that ran in the window (count).
    """

    share: float = 0.4
    layers: int = 5


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding for each layer over the limit."""
    window = latest(history)
    if len(window.leaves) < limits.layers:
        return NotReady(f"needs {limits.layers} leaf layers in the window, {len(window.leaves)} ran")
    return [
        Finding(
            title=f"{found.layer.type} takes {percent(found.compute)} of the layers' time",
            since_step=window.step,
            detail=f"{_times(window.data, found.layer.name)}; {percent(found.parameters)} of the parameters.",
            layer=found.layer.name,
            metric="profile.share",
            value=found.compute,
            threshold=limits.share,
        )
        for found in window.leaves
        if found.compute >= limits.share
    ]


def _times(data: object, name: str) -> str:
    """Its two passes per step, in words."""
    assert isinstance(data, dict)
    row = next(r for r in data["layers"] if r.get("name") == name)
    steps = max(1, int(data.get("steps") or 1))
    forward, backward = (float(row.get(k) or 0.0) / steps for k in ("forward_s", "backward_s"))
    return f"{duration(forward)} forward and {duration(backward)} backward in a step"


CHECK = Check(
    severity=Severity.INFO,
    category=Category.PROFILER,
    cause=Cause.OTHER,
    when=frozenset({On.PROFILE}),
    reads=("profile", "layout"),
    limits=Limits(),
    find=find,
    fix="Make its input smaller, factorise it or use a fused kernel; others are not worth the trouble.",
    snippet="model = torch.compile(model)",
)
