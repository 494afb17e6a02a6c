"""The loss is NaN or infinite.

What it detects
    A step whose loss is NaN, +Inf or −Inf. Under a gradient scaler (float16) it takes three such steps in a
    row, because the scaler skips an overflowing step and goes on with a smaller scale. The layer, input or
    parameter in which it came in is named, with the batch, if that step was watched closely enough: sampled,
    or with the sentinel on.

Why it matters
    A NaN loss makes every gradient NaN, and the next optimizer step writes NaN into every weight. Nothing
    after that step is training.

What to do
    Look at the step before the first one. Usual causes are a learning rate that is too large, a logarithm or
    division at zero, an empty batch under a mean, NaN in the data, and float16 overflow. Lower the learning
    rate, clip gradients, add an epsilon inside log and division, and go back to a checkpoint from before.

When it is fine
    A single overflow under a gradient scaler is part of how the scaler finds its scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._nonfinite import came_in, not_watched, titled
from torchwatch.history import Columns, History
from torchwatch.records import is_bad

_SNIPPET = """\
if not torch.isfinite(loss):
    raise RuntimeError(f"loss is {loss.item()} at this batch")
loss.backward()
torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
optimizer.step()
"""


@dataclass(frozen=True)
class Limits:
    """When a loss that is no number is reported. A guard at 0 is off.

    Attributes:
        consecutive_steps: non-finite losses in a row (steps).
        scaler_steps: guard: as many in a row where a gradient scaler is in use (steps).
    """

    consecutive_steps: int = 1
    scaler_steps: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while the loss is non-finite, or was within the line just read."""
    steps, values = history.series("loss")
    fresh = int(np.searchsorted(steps, history.new_from))
    if np.isfinite(values[fresh:]).all():
        return []
    scaled = history.seen("grad_scale")
    needed = max(1, limits.consecutive_steps, limits.scaler_steps if scaled else 0)
    start, count = _longest_run(np.isfinite(values), fresh)
    if count < needed:
        return []
    onset, value = int(steps[start]), float(values[start])
    place = came_in(history, onset)
    word = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "−Inf"
    before = f"The last finite loss was {values[start - 1]:.4g} at step {steps[start - 1]}. " if start else ""
    length = f"{count} non-finite losses in a row. " if count > 1 else ""
    where = "" if place else _origin(history, onset) or not_watched(onset)
    scaler = " A gradient scaler is in use and did not recover." if scaled else ""
    return [
        Finding(
            title=titled(f"Loss is {word} since step {onset}", place),
            since_step=onset,
            detail=f"{length}{before}{where}{scaler}".strip(),
            metric="loss",
            value=value,
            threshold=float(needed),
        )
    ]


def _longest_run(finite: np.ndarray[tuple[int], np.dtype[np.bool_]], fresh: int) -> tuple[int, int]:
    """Start and length of the longest run of non-finite losses that reaches into the fresh part."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], finite, [True]))))
    starts, ends = edges[::2], edges[1::2]
    length = np.where(ends > fresh, ends - starts, 0)
    longest = int(length.argmax())
    return int(starts[longest]), int(length[longest])


def _origin(history: History, onset: int) -> str | None:
    """What was non-finite first, if anything was seen so by the step of the loss.

    A non-finite loss makes all gradients of its own step non-finite, so gradients count only before it.
    """
    layout = history.layout
    if layout is None:
        return None
    seen: list[tuple[int, int, str]] = []
    activations = history.columns("activations.nonfinite")
    for step, row in zip(*_until(activations, onset), strict=True):
        layers = [i for i in np.flatnonzero(row > 0) if i < len(layout.layers)]
        if layers:
            first = min(
                layers, key=lambda i: (layout.layers[i].order is None, layout.layers[i].order or 0, i)
            )
            seen.append((int(step), 0, f"the output of layer {layout.layers[first].name!r}"))
            break
    for rank, name, what, last in (
        (1, "weight_norms", "parameter", onset),
        (2, "grad_norms", "the gradient of", onset - 1),
    ):
        for step, row in zip(*_until(history.columns(name), last), strict=True):
            bad = [i for i in np.flatnonzero(is_bad(row)) if i < len(layout.parameters)]
            if bad:
                seen.append((int(step), rank, f"{what} {layout.parameters[bad[0]].name!r}"))
                break
    if not seen:
        return None
    step, _, what = min(seen)
    return f"First seen non-finite: {what}, at step {step}."


def _until(columns: Columns, step: int) -> Columns:
    end = int(np.searchsorted(columns.steps, step, side="right"))
    return Columns(columns.steps[:end], columns.values[:end])


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.STEP}),
    reads=("loss",),
    uses=(
        "grad_scale",
        "first_nonfinite",
        "fingerprint",
        "activations.nonfinite",
        "weight_norms",
        "grad_norms",
    ),
    limits=Limits(),
    find=find,
    fix=(
        "Go back to a checkpoint from before the step, divide the learning rate by 10, clip gradients, and "
        "look at that step's batch for NaN, empty targets, log(0) or a division by zero."
    ),
    snippet=_SNIPPET,
    resolve_after=20,
)
