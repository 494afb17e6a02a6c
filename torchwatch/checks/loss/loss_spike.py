"""Single batches have a far larger loss than their neighbours.

What it detects
    A loss more than 6 σ above the last 128 steps, or more than 20 times the mean of the last interval. The
    spread is measured on the logarithm of the loss, where heavy tails are tame.

Why it matters
    Such a batch gives a gradient that can undo many good steps. Often it holds a wrong label, an unscaled
    value or an empty target.

What to do
    Look at the batch of the named step. Clip the gradient norm so that one batch cannot do much harm.

When it is fine
    One bad batch from which the loss returns at once is only noted. It is a warning when several come
    together, lie above the level at which training began, and the loss returned between or after them: a loss
    that stays up has changed its level, as with new classes or a harder source, and ``loss-explosion`` judges
    that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Values, first_level, has_signs, lr_rose, plays_against_itself
from torchwatch.history import History, Series
from torchwatch.statistics import middle, scatter
from torchwatch.text import number

_BLOCK = 32


@dataclass(frozen=True)
class Limits:
    """When a batch's loss is a spike. A guard at 0 is off.

    Attributes:
        sigmas: smallest distance from the median of the steps before, in σ of the log-loss (σ).
        mean_ratio: or smallest ratio to the mean of the last interval (ratio).
        window: steps before that are compared with (steps).
        armed_after: losses seen before anything is a spike (steps).
        least_ratio: guard: a spike is at least as many times the median before it (ratio).
        first_floor: guard: a spike is at least this share of the first interval's level (share).
        burst: guard: a warning takes as many spikes within ``burst_steps`` (steps).
        burst_steps: steps that make one burst (steps).
        chance: guard: largest number of such bursts that single high losses, as frequent as they were, would
            have made by chance so far (count).
        rare: guard: a spike lies above all but this share of the steps before (share).
        lr_intervals: guard: spikes this soon after a logged rise of the lr are only noted (intervals).
    """

    sigmas: float = 6.0
    mean_ratio: float = 20.0
    window: int = 128
    armed_after: int = 64
    least_ratio: float = 1.5
    first_floor: float = 0.01
    burst: int = 3
    burst_steps: int = 5
    chance: float = 0.01
    rare: float = 0.02
    lr_intervals: int = 2


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding for the largest spike of the line just read."""
    losses = history.series("loss")
    count = losses.values.size
    if count <= limits.armed_after:
        return NotReady(f"needs {limits.armed_after + 1} steps with a loss, {count} seen")
    # Whether the loss came back is seen after the spike, so the last few steps are looked at again.
    first_new = int(np.searchsorted(losses.steps, history.new_from))
    fresh = max(first_new - max(0, limits.burst_steps), limits.armed_after)
    found: Finding | None = None
    for start in range(fresh, count, _BLOCK):
        finding = _in_block(history, losses, start, min(start + _BLOCK, count), limits)
        if finding is not None and (found is None or _rank(finding) > _rank(found)):
            found = finding
    return [found] if found else []


def _rank(finding: Finding) -> tuple[int, float]:
    return int(finding.severity or 0), finding.value or 0.0


def _in_block(history: History, losses: Series, start: int, end: int, limits: Limits) -> Finding | None:
    before, block = losses.values[max(0, start - limits.window) : start], losses.values[start:end]
    typical = middle(before)
    if not np.isfinite(typical):
        return None
    signed = typical <= 0 or has_signs(history)
    if not signed and not (block > limits.least_ratio * typical).any():
        return None
    level = _threshold(history, before[np.isfinite(before)], limits, signed=signed)
    spikes = (block > level) & np.isfinite(block)
    if not spikes.any():
        return None
    return _finding(history, losses, start, start + np.flatnonzero(spikes), level, typical, limits)


def _threshold(history: History, before: Values, limits: Limits, *, signed: bool) -> float:
    """The loss above which a step is a spike; infinite for a loss around 0 whose scatter is not known."""
    typical = middle(before)
    if signed:
        spread = scatter(before)
        return typical + limits.sigmas * spread if spread > 0 else math.inf
    sigma = scatter(np.log(np.maximum(before, 1e-300)))
    with np.errstate(over="ignore"):
        by_noise = float(typical * np.exp(limits.sigmas * sigma))
    mean = history.intervals[-1].loss_mean if history.intervals else None
    by_mean = limits.mean_ratio * (mean if mean is not None and mean > 0 else float(before.mean()))
    floor = limits.first_floor * (first_level(history) or 0.0)
    if limits.rare:
        floor = max(floor, float(np.sort(before)[-1 - int(limits.rare * before.size)]))
    return max(min(by_noise, by_mean), limits.least_ratio * typical, floor)


def _finding(
    history: History,
    losses: Series,
    start: int,
    spikes: npt.NDArray[np.int64],
    level: float,
    typical: float,
    limits: Limits,
) -> Finding:
    at = int(spikes[losses.values[spikes].argmax()])
    step, value = int(losses.steps[at]), float(losses.values[at])
    low = max(0, start - limits.burst_steps)
    near = losses.values[max(0, at - limits.burst_steps + 1) : at + limits.burst_steps]
    high = np.isfinite(near) & (near > level)
    together = int(np.convolve(high, np.ones(max(1, limits.burst_steps), np.int64)).max())
    earlier = low + np.flatnonzero(losses.values[low : int(spikes[0]) + 1] > level)
    first = first_level(history)
    serious = (
        together >= limits.burst
        and (first is None or value > first)
        and _returned(losses.values[earlier[0] :], level, typical)
        and not _is_expected(history, step, limits)
        and not (typical > 0 and _by_chance(losses.values[:low], level / typical, limits))
    )
    norm = history.series("grad_norm")
    measured = norm.values[norm.steps == step]
    detail = (
        f"{together} such step{'s' * (together != 1)} close together; median of the steps before "
        f"{number(typical)}, limit {number(level)}, first level {number(first)}."
        + (f" Gradient norm of that step {number(float(measured[0]))}." if measured.size else "")
    )
    times = f"{value / typical:.3g} times its median, " if typical > 0 else ""
    return Finding(
        title=f"Loss spiked to {times}{number(value)}, at step {step}",
        since_step=int(losses.steps[earlier[0]]),
        detail=detail,
        severity=Severity.WARNING if serious else Severity.INFO,
        metric="loss",
        value=value,
        threshold=level,
        fix=f"Look at the batch of step {step}, and clip gradients so that one batch cannot do much harm.",
    )


def _returned(since: Values, level: float, typical: float) -> bool:
    """Whether a loss since the first spike was back: nearer to what is typical than to a spike's level."""
    back = math.sqrt(typical * level) if typical > 0 else (typical + level) / 2
    return bool((since <= back).any())


def _is_expected(history: History, step: int, limits: Limits) -> bool:
    """Whether the loss is not made to fall, or the learning rate just rose."""
    if plays_against_itself(history) is not None or lr_rose(history, step, limits.lr_intervals):
        return True
    return bool(limits.lr_intervals) and step <= history.warm_up_end()


def _by_chance(before: Values, times: float, limits: Limits) -> bool:
    """Whether single losses as high are so frequent that they come together by chance.

    Of n steps of which a share q is that high, n·q·C(2w − 2, k − 1)·q^(k − 1) see k within w steps of one.
    """
    rows = before[before.size % _BLOCK :].reshape(-1, _BLOCK)
    if not limits.chance or not rows.size or times <= 1:
        return False
    share = float((rows > times * np.median(rows, axis=1, keepdims=True)).mean())
    others = max(1, limits.burst) - 1
    pairs = math.comb(max(0, 2 * limits.burst_steps - 2), others)
    return before.size * share * pairs * share**others > limits.chance


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.STEP}),
    reads=("loss",),
    uses=("lr", "grad_norm"),
    limits=Limits(),
    find=find,
    fix="Look at the batch of that step, and clip the gradient norm so that one batch cannot do much harm.",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)  # between backward and step\n",
    resolve_after=64,
)
