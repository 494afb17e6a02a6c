"""A gradient that the optimizer applied is NaN or infinite.

What it detects
    The global gradient norm of an applied optimizer step is NaN or infinite. A norm can also overflow
    although every element is still finite: where elements were counted (on sampled steps) that is said, and
    at that size the difference does not matter. The layer named is the last one in call order among those
    whose gradient went bad first, because backward hands a NaN on to everything that comes before. When all
    gradients went bad in the same step, no layer is named: the NaN came with the loss. Where it came in
    first, also in the forward pass, is said if that step was watched closely enough.

Why it matters
    One step with such a gradient makes every weight that it touches NaN, and with momentum or Adam the
    optimizer's state too. Nothing that follows is training.

What to do
    Go back to a checkpoint from before that step. Lower the learning rate, clip the norm, look at the
    batch. Under mixed precision call ``scaler.unscale_(optimizer)`` before clipping, or train in
    bfloat16.

When it is fine
    A gradient scaler meets infinite gradients while it looks for its scale and skips those steps: they
    are left out (``exclude_skipped``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._nonfinite import came_in, not_watched, titled
from torchwatch.checks.gradients._origin import elements, origin
from torchwatch.history import History
from torchwatch.records import is_bad, is_missing
from torchwatch.text import number


@dataclass(frozen=True)
class Limits:
    """When a non-finite gradient is reported.

    Attributes:
        consecutive_steps: applied steps in a row with a NaN or infinite gradient (steps).
        exclude_skipped: 1 leaves out the steps that a gradient scaler skipped, 0 counts them too
            (switch).
    """

    consecutive_steps: int = 1
    exclude_skipped: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding for the whole run, with the layer in which it began."""
    norms = history.series("grad_norm")
    if not norms.values.size:
        return NotReady("no gradient norm yet")
    fresh = min(int(np.searchsorted(norms.steps, history.new_from)), norms.values.size - 1)
    if np.isfinite(norms.values[fresh:]).all():
        return []
    run = _last_run(history, limits)
    if len(run) < max(1, limits.consecutive_steps) or run[-1] < norms.steps[fresh]:
        return []
    onset, first_bad = int(run[0]), history.first_bad("grad_norms")
    if onset == norms.steps[0] and first_bad is not None:  # it began before the window that is kept in full
        onset = min(onset, first_bad[0])
    return [_finding(history, onset, len(run))]


def _last_run(history: History, limits: Limits) -> npt.NDArray[np.int64]:
    """Applied steps of the last stretch of non-finite norms, oldest first."""
    steps, values = history.series("grad_norm")
    if limits.exclude_skipped and history.seen("skipped"):
        flags = history.series("skipped")
        applied = ~np.isin(steps, flags.steps[flags.values > 0])
        steps, values = steps[applied], values[applied]
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size:
        return steps[:0]
    good = np.flatnonzero(np.isfinite(values[: bad[-1]]))
    return steps[int(good[-1]) + 1 if good.size else 0 : int(bad[-1]) + 1]


def _finding(history: History, onset: int, length: int) -> Finding:
    norms = history.series("grad_norm")
    place = int(np.searchsorted(norms.steps, onset))
    value = float(norms.values[place])
    layer, where, detail = _where(history, onset)
    entry = came_in(history, onset)
    if entry is None:
        detail = f"{detail} {not_watched(onset)}"
    before = norms.values[:place]
    finite = before[np.isfinite(before)]
    if finite.size:
        detail += f" The last finite gradient norm before was {number(float(finite[-1]))}."
    return Finding(
        title=titled(f"{where} {number(value)} at step {onset}", entry),
        since_step=onset,
        detail=f"{detail} Applied steps in a row: {length}.".strip(),
        layer=layer,
        metric="grad_norm",
        value=value,
    )


def _where(history: History, onset: int) -> tuple[str | None, str, str]:
    """Layer, subject of the title, evidence; from the first column at or after the onset that shows it."""
    found = history.first_bad("grad_norms")
    layout = history.layout
    if found is None or layout is None or found[0] < onset:
        return None, "Global gradient norm is", ""
    row = found[1]
    bad = is_bad(row)
    began = origin(layout, row, bad)
    share = f"{int(bad.sum())} of {int((~is_missing(row)).sum())} parameters had such a gradient."
    share = f"{share} {elements(history, 'grad_nonfinite', found[0], bad)}".rstrip()
    if began is None:
        return None, "Every gradient is", f"{share} It came in with the loss, or from above the last layer."
    return began[0], f"Gradient of {began[1]} is", share


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.STEP}),
    reads=("grad_norm",),
    uses=("grad_norms", "grad_nonfinite", "skipped", "first_nonfinite", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Go back to the last good checkpoint, lower the learning rate, clip the norm, check the batch.",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # after scaler.unscale_(optimizer)",
    resolve_after=10,
)
