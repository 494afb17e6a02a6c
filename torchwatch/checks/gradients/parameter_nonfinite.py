"""A parameter holds NaN or infinity.

What it detects
    A weight norm (read on sampled steps) or an update ratio (a fixed slice of every parameter, normally
    read at every step) is NaN or infinite. Both are measured after the optimizer's step. Finite weights
    beyond 1e19 count too: the square of their norm no longer fits into float32. Where it came in first
    is said if that step was watched: in the forward or backward pass, or in the optimizer's step.

Why it matters
    A NaN in one weight reaches every output that depends on it, the loss, and one step later all weights.
    It does not go away: the run is lost from here on.

What to do
    Load the last checkpoint from before the step that is named, find out what made the gradient or the
    update so large (learning rate, missing clipping, a bad batch, an overflow in half precision), and go
    on from there.

When it is fine
    Masks or tables filled with infinity and registered as parameters; make them buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._nonfinite import came_in, not_watched, titled
from torchwatch.checks.gradients._origin import elements, origin
from torchwatch.history import History
from torchwatch.records import is_bad, is_missing


@dataclass(frozen=True)
class Limits:
    """When a non-finite parameter is reported.

    Attributes:
        parameters: parameters that hold a NaN or infinity (count).
    """

    parameters: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding for the whole run, with the layer in which it began."""
    spots = [s for s in map(history.first_bad, ("update_ratios", "weight_norms")) if s is not None]
    if not spots:
        return (
            []
            if history.seen("update_ratios") or history.seen("weight_norms")
            else NotReady("no weights read")
        )
    seen_at, row = min(spots, key=lambda spot: spot[0])
    bad = is_bad(row)
    count = int(bad.sum())
    if count < max(1, limits.parameters):
        return []
    onset, good = _onset(history, seen_at)
    layout, place = history.layout, came_in(history, onset)
    began = None if layout is None else origin(layout, row, bad)
    measured = int((~is_missing(row)).sum())
    known = (
        "no step was seen before it" if good is None else f"the last step with finite parameters is {good}"
    )
    sentences = (
        f"{count} of {measured} measured parameters hold NaN or infinity; {known}.",
        elements(history, "weight_nonfinite", seen_at, bad),
        "" if place else not_watched(onset),
    )
    subject = began[1] if began else f"{count} of {measured} parameters"
    return [
        Finding(
            title=titled(f"{subject} not finite since step {onset}", place),
            since_step=onset,
            detail=" ".join(filter(None, sentences)),
            layer=began[0] if began else None,
            metric="parameters_nonfinite",
            value=float(count),
            threshold=float(max(1, limits.parameters)),
        )
    ]


def _onset(history: History, seen_at: int) -> tuple[int, int | None]:
    """First bad step and last good one: the overall update ratio may show it before a column was kept."""
    ratios = history.series("update_ratio")
    until = ratios.values[: np.searchsorted(ratios.steps, seen_at, side="right")]
    finite = np.flatnonzero(np.isfinite(until))
    if not finite.size:
        return (int(ratios.steps[0]), None) if until.size else (seen_at, None)
    last = int(finite[-1])
    first_bad = int(ratios.steps[last + 1]) if last + 1 < until.size else seen_at
    good = int(ratios.steps[last])
    return first_bad, good if good < first_bad else first_bad - 1


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.GRADIENTS,
    cause=Cause.PARAMETER,
    when=frozenset({On.STEP}),
    reads=("update_ratios",),
    uses=("weight_norms", "weight_nonfinite", "update_ratio", "first_nonfinite", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Roll back to a checkpoint from before this step, then lower the learning rate or clip gradients.",
    snippet="model.load_state_dict(torch.load(last_good_checkpoint))",
    resolve_after=10,
)
