"""The loss has hardly any noise, and validation does not improve.

What it detects
    The step-to-step scatter of the loss within an interval is below 0.1 % of its level, while the validation
    loss has not improved in the last three evaluations.

Why it matters
    The noise of small batches helps to leave sharp minima, and many small steps get further than a few
    large ones for the same work.

What to do
    Halve the batch, or raise the learning rate; then compare the validation loss after as many samples.

When it is fine
    Losses that are averaged over many tokens have little noise whatever the batch, and validation stands
    still at the end of every training. So this speaks for a smaller batch without proving anything: it is
    never more than a note.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._roughness import Roughness, roughness
from torchwatch.history import History
from torchwatch.text import number, percent, printable


@dataclass(frozen=True)
class Limits:
    """When the batch is too large. A guard at 0 is off.

    Attributes:
        noise: largest scatter over level within an interval (share).
        evals: last evaluations of which none is better than the best before (evaluations).
        memorised: guard: nothing is said where the loss is below this share of its first (share).
        warm_up: guard: 1 leaves out the first interval and warm-up (switch).
    """

    noise: float = 1e-3
    evals: int = 3
    memorised: float = 0.01
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the last interval."""
    rough = roughness(history, warm_up=bool(limits.warm_up))
    if rough is None:
        return []
    if isinstance(rough, NotReady):
        return rough
    # A loss that does not change at all is `constant-loss`.
    if not 0 < rough.sigma < limits.noise * rough.mean or rough.mean < limits.memorised * rough.first:
        return []
    name = history.val_loss_name() or "val_loss"
    val = history.eval_series(name).values
    val = val[np.isfinite(val)]
    if val.size <= max(1, limits.evals):
        return NotReady(f"needs {max(1, limits.evals) + 1} evaluations, {val.size} seen")
    recent = max(1, limits.evals)
    best = float(val[:-recent].min())
    if val[-recent:].min() < best:
        return []
    return [_finding(history, rough, name, best, limits)]


def _finding(history: History, rough: Roughness, name: str, best: float, limits: Limits) -> Finding:
    batches = {s.value for s in history.stretches("fingerprint")[-8:]}
    samples = history.series("samples", 1).values
    facts = [f"step-to-step scatter {number(rough.sigma)} at a level of {number(rough.mean)}"]
    facts.append(f"{printable(name)} has stayed above {number(best)} for {limits.evals} evaluations")
    if samples.size:
        facts.append(f"{int(samples[0])} samples per step")
    against = "training may simply have converged"
    if len(batches) == 1:
        facts.append("every step sees the same batch")
    return Finding(
        title=f"Loss varies by only {percent(rough.sigma / rough.mean)} while validation stands still",
        since_step=rough.since,
        detail=f"For a smaller batch: {'; '.join(facts)}. Against it: {against}.",
        metric="loss",
        value=rough.sigma / rough.mean,
        threshold=limits.noise,
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("loss", "val_loss"),
    uses=("samples", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Halve the batch or raise the learning rate, and compare the validation loss after as many samples.",
    resolve_after=2,
)
