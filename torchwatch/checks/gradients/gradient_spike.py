"""Single steps have a far larger gradient than their neighbours.

What it detects
    A gradient norm (before clipping, where clipping was observed) more than 6 robust standard deviations
    above the last 128 steps, on the logarithm, and at least 5 times the median of the last 8. A warning when
    there are more than three such steps in 100, they lie above the level at which training began, nothing
    clips them, and the loss is not at its best.

Why it matters
    Such a step moves the weights as far as many good ones, and Adam remembers its square for hundreds of
    steps, during which it hardly learns.

What to do
    Clip the gradient norm. Look at the batch of the named step: a wrong label, an unscaled value, an empty
    target.

When it is fine
    One spike now and then is only noted, and so are those that clipping cut, those soon after a raised
    learning rate, and those of adversarial and reinforcement losses, whose gradients have heavy tails. Where
    the norm stays high it is no spike: ``exploding-gradients`` speaks of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import loss_is_at_its_best
from torchwatch.statistics import mad_sigma
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History, Series

Values = npt.NDArray[np.float64]

_BLOCK = 32
_NEAR = 8
_SPAN = 100


@dataclass(frozen=True)
class Limits:
    """When a step's gradient is a spike. A guard at 0 is off.

    Attributes:
        sigmas: smallest distance of the log-norm from the median of the steps before (σ).
        window: steps before that are compared with (steps).
        armed_after: norms seen before anything is a spike (steps).
        sigma_least: guard: smallest σ of the log-norm, because a steady run's own is tiny (log units).
        near_ratio: guard: a spike is at least as many times the median of the 8 steps before it (factor).
        burst: a warning takes more spikes than this within 100 steps (steps).
        first_ratio: guard: of them only those count that are this many times the median of the first norms
            (factor).
        clipped: guard: 1 only notes spikes that clipping cut (switch).
        best_loss: guard: 1 only notes them while the loss is at its best (switch).
        heavy_tails: guard: 1 only notes them in adversarial and reinforcement training (switch).
        after_lr_rise: guard: steps after a rise of the learning rate in which they are only noted (steps).
        warm_up: guard: 1 judges nothing before warm-up is over (switch).
    """

    sigmas: float = 6.0
    window: int = 128
    armed_after: int = 64
    sigma_least: float = 0.25
    near_ratio: float = 5.0
    burst: int = 3
    first_ratio: float = 1.0
    clipped: int = 1
    best_loss: int = 1
    heavy_tails: int = 1
    after_lr_rise: int = 50
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding for the largest spike of the line just read."""
    norms = history.series("grad_norm_preclip" if history.seen("grad_norm_preclip") else "grad_norm")
    count = len(norms.steps)
    if count <= limits.armed_after:
        return NotReady(f"needs {limits.armed_after + 1} steps with a gradient, {count} seen")
    fresh = max(int(np.searchsorted(norms.steps, history.new_from)), limits.armed_after)
    if fresh >= count or (limits.warm_up and norms.steps[-1] <= history.warm_up_end()):
        return []
    found: Finding | None = None
    for start in range(fresh, count, _BLOCK):
        finding = _in_block(history, norms, start, min(start + _BLOCK, count), limits)
        if finding is not None and (found is None or _rank(finding) > _rank(found)):
            found = finding
    return [found] if found else []


def _rank(finding: Finding) -> tuple[int, float]:
    return int(finding.severity or 0), finding.value or 0.0


def _in_block(history: History, norms: Series, start: int, end: int, limits: Limits) -> Finding | None:
    before = norms.values[max(0, start - limits.window) : start]
    middle = np.partition(before, before.size // 2)[before.size // 2]
    if norms.values[start:end].max() <= middle * math.exp(limits.sigmas * limits.sigma_least):
        return None  # the least σ alone allows it
    before = before[np.isfinite(before) & (before > 0)]
    if not before.size:
        return None
    logs = np.log(before)
    half = logs.size // 2
    level = max(float(np.median(logs)), float(np.median(logs[half:])))
    sigma = max(mad_sigma(logs), limits.sigma_least)
    threshold = float(np.exp(min(level + limits.sigmas * sigma, 700.0)))
    spikes = _spikes(norms, max(1, start), end, threshold, limits)
    if limits.warm_up:
        spikes = spikes[norms.steps[spikes] > history.warm_up_end()]
    return _finding(history, norms, spikes, threshold, float(np.exp(level)), limits) if spikes.size else None


def _spikes(norms: Series, start: int, end: int, threshold: float, limits: Limits) -> npt.NDArray[np.int64]:
    """Places of the finite norms above the threshold that stand out from the eight before them."""
    places = start + np.flatnonzero(norms.values[start:end] > threshold)
    alone = [
        i for i in places.tolist()
        if np.isfinite(norms.values[i])
        and norms.values[i] > limits.near_ratio * np.median(norms.values[max(0, i - _NEAR) : i])
    ]  # fmt: skip
    return np.array(alone, np.int64)


def _finding(
    history: History,
    norms: Series,
    spikes: npt.NDArray[np.int64],
    threshold: float,
    typical: float,
    limits: Limits,
) -> Finding:
    at = int(spikes[norms.values[spikes].argmax()])
    step, value = int(norms.steps[at]), float(norms.values[at])
    span = max(1, int(np.searchsorted(norms.steps, step - _SPAN, side="right")))
    together = _spikes(norms, span, int(spikes[-1]) + 1, threshold, limits)
    first = history.first("grad_norm_preclip" if history.seen("grad_norm_preclip") else "grad_norm").values
    floor = limits.first_ratio * float(np.median(first[np.isfinite(first)])) if limits.first_ratio else 0.0
    harmful = together[norms.values[together] > floor]
    serious = len(harmful) > limits.burst and not _is_excused(history, norms.steps[harmful], limits)
    batch = history.value_at("fingerprint", step)
    return Finding(
        title=f"Gradient norm {number(value)} at step {step}, {number(value / typical)} times its median",
        since_step=int(norms.steps[together[0]]),
        detail=f"{len(together)} such step{'s' * (len(together) != 1)} in the last {_SPAN}."
        + (f" Batch {batch}." if isinstance(batch, str) else ""),
        severity=Severity.WARNING if serious else Severity.INFO,
        metric="grad_norm",
        value=value,
        threshold=threshold,
    )


def _is_excused(history: History, steps: npt.NDArray[np.int64], limits: Limits) -> bool:
    """Whether the spikes do no harm, or have a reason."""
    declared = history.declared.get("adversarial") or history.declared.get("reinforcement")
    several = history.layout is not None and history.layout.several_optimizers
    if limits.heavy_tails and (declared or several):
        return True
    rises = history.lr_rises()
    if rises and steps[-1] - rises[-1] < limits.after_lr_rise:
        return True
    if limits.best_loss and loss_is_at_its_best(history):
        return True
    clipped = history.series("clipped")
    cut = clipped.values[np.isin(clipped.steps, steps)]
    return bool(limits.clipped) and 2 * int(cut.sum()) > len(steps)


CHECK = Check(
    severity=Severity.INFO,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.STEP}),
    reads=("grad_norm",),
    uses=("grad_norm_preclip", "clipped", "loss", "lr", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Look at the batch of that step, and clip the gradient norm so that one step cannot do much harm.",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # between backward and step",
    resolve_after=64,
)
