"""A Linear layer behind a flatten holds nearly all parameters of a CNN.

What it detects
    A Linear layer that reads a flattened map of convolutions holds more than 92 % of all parameters
    (``share``). The flatten is told from the shapes of the first step, so a functional one counts too.

Why it matters
    Such a layer learns one weight per pixel and unit: it overfits first, it knows nothing of neighbourhoods,
    and it ties the model to one size of image. The convolutions in front are left with little to do.

What to do
    Pool the map before it is flattened: ``nn.AdaptiveAvgPool2d(1)`` leaves one number per channel and makes
    the layer as small as the number of channels; or add a convolution with a stride.

When it is fine
    Small models on small images that train well: PyTorch's own MNIST example has 98 % in that layer. It is
    a note about where the parameters are, never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.checks.architecture._flatten import flattened
from torchwatch.history.kinds import parameters_of

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a layer dominates.

    Attributes:
        share: share of all parameters above which the layer holds too many (share).
    """

    share: float = 0.92


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding: only one layer can hold so much."""
    reason = unfit(history, "cnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    total = parameters_of(layout)
    found = [(x, n) for x, n in flattened(layout) if x.parameters > limits.share * total]
    if not found:
        return []
    layer, positions = max(found, key=lambda entry: entry[0].parameters)
    features = layer.inputs[0][1]
    return [
        Finding(
            title=f"{layer.parameters / total:.0%} of all parameters are in a Linear layer behind a flatten",
            since_step=layout.step,
            detail=f"It reads {features:,} features, {features // positions:,} channels at {positions:,} "
            f"places, and has {layer.parameters:,} of {total:,} parameters.",
            layer=layer.name,
            metric="parameter_share",
            value=layer.parameters / total,
            threshold=limits.share,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Pool the map before it is flattened.",
    snippet="nn.AdaptiveAvgPool2d(1)  # in front of nn.Flatten()",
    resolve_after=1,
)
