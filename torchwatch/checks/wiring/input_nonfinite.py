"""A model input holds NaN or infinity.

What it detects
    A floating tensor among the model's arguments has non-finite entries in a step that was trained on.
    Critical where loss, gradients or weights of that step are not finite either; an info where the model
    copes with it, or a GradScaler skipped the step. Statistics of inputs are taken on sampled steps;
    between them the sentinel finds inputs that ruin a step.

Why it matters
    One NaN in a batch makes every output, every gradient and after the step every weight NaN. The model
    cannot recover from that.

What to do
    Clean the data: missing values, divisions by a zero standard deviation, logarithms of zero, overflow in
    half precision. Check batches before they reach the model.

When it is fine
    Models that treat missing values themselves are only told so. Minus infinity in a mask (a tensor named
    so, or one with no entry above 0) is how positions are left out, and does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import printable

if TYPE_CHECKING:
    from torchwatch.history import History

_MASKS = ("mask", "bias")


@dataclass(frozen=True)
class Limits:
    """When an input counts as not finite. A guard at 0 is off.

    Attributes:
        entries: non-finite entries in one step's inputs (count).
        masks: guard: 1 leaves out minus infinity in masks (switch).
        harm: guard: 1 only notes it where loss and gradients stay finite, or the step was skipped (switch).
    """

    entries: int = 1
    masks: int = 1
    harm: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the steps that have just come."""
    described, origins = history.stretches("inputs"), history.stretches("first_nonfinite", 1)
    if not described and not origins:
        return NotReady("no input seen yet")
    found: list[Finding] = []
    for stretch in reversed(described):
        if stretch.last < history.new_from:
            break
        if stretch.value.get("nonfinite"):
            found += _described(history, stretch.last, stretch.value, limits)
    for stretch in reversed(origins and history.stretches("first_nonfinite")):
        if stretch.last < history.new_from:
            break
        if stretch.value.get("where") == "input" and all(f.since_step != stretch.first for f in found):
            found.append(_finding(history, stretch.first, stretch.value.get("name"), None, limits))
    if not found:
        return []
    return [min(found, key=lambda f: (-(f.severity or Severity.INFO), f.since_step))]


def _described(history: History, step: int, inputs: dict[str, Any], limits: Limits) -> list[Finding]:
    """One finding where a tensor that counts has non-finite entries."""
    tensors = [t for t in inputs.get("tensors", ()) if t.get("nonfinite") and not _is_mask(t, limits)]
    count = sum(t["nonfinite"] for t in tensors)
    if count < max(1, limits.entries):
        return []
    return [_finding(history, step, ", ".join(str(t.get("name")) for t in tensors), count, limits)]


def _is_mask(tensor: dict[str, Any], limits: Limits) -> bool:
    """Whether the tensor's only non-finite entries are minus infinity, where that leaves positions out."""
    low, high = tensor.get("low"), tensor.get("high")
    if not limits.masks or low != -math.inf or high is None or high == math.inf:
        return False
    return high <= 0 or any(word in str(tensor.get("name")).lower() for word in _MASKS)


def _consequence(history: History, step: int) -> tuple[str, bool]:
    """What became of the step, and whether that is harm; not knowing counts as harm."""
    if _at(history, "skipped", step):
        return "The step was skipped, so no weight has changed.", False
    known = False
    for name, words in (
        ("loss", "The loss of that step is"),
        ("grad_norm", "The gradients of that step are"),
    ):
        value = _at(history, name, step)
        if value is not None and not math.isfinite(value):
            return f"{words} not finite.", True
        known = known or value is not None
    if history.value_at("first_nonfinite", step) is not None:
        return "Weights are not finite after that step.", True
    if not known:
        return "What became of that step was not measured.", True
    return "Loss and gradients of that step are finite.", False


def _at(history: History, name: str, step: int) -> float | None:
    steps, values = history.series(name)
    place = int(np.searchsorted(steps, step))
    return float(values[place]) if place < len(steps) and steps[place] == step else None


def _finding(history: History, step: int, name: object, count: int | None, limits: Limits) -> Finding:
    words, harm = _consequence(history, step)
    batch = history.value_at("fingerprint", step)
    entries = "NaN or infinity" if count is None else f"{count:,} non-finite entries"
    return Finding(
        title=f"Input {printable(name)} holds {entries} at step {step}"
        + (f", batch {printable(batch)}" if batch else ""),
        since_step=step,
        detail=words,
        severity=Severity.CRITICAL if harm or not limits.harm else Severity.INFO,
        metric="inputs.nonfinite",
        value=None if count is None else float(count),
        threshold=float(max(1, limits.entries)),
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.WIRING,
    cause=Cause.INPUT,
    when=frozenset({On.STEP}),
    reads=("inputs",),
    uses=("first_nonfinite", "loss", "grad_norm", "skipped", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Clean the data: look for missing values, divisions by zero and log(0) in this batch.",
    snippet="assert torch.isfinite(x).all(), 'a batch with NaN'",
    resolve_after=50,
)
