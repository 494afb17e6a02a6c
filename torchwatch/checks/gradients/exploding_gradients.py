"""The gradient norm explodes.

What it detects
    In three of five steps the global gradient norm before clipping is above ten times the largest of the
    first 100 steps after warm-up, or the log-norm is more than eight robust standard deviations above the
    128 steps before (1.4826 times the median absolute deviation from their trend). The norm before
    clipping is used wherever clipping was observed. Critical when the loss follows: it doubles, or is no
    longer finite.

Why it matters
    A step is the learning rate times the gradient. Steps of ten times the usual size throw the weights
    out of the region in which the loss was small, and the next gradient is larger still.

What to do
    Clip the norm, lower the learning rate, warm it up. In recurrent networks look at the sequence length.

When it is fine
    Leaving a plateau needs large gradients for a while: as long as the loss falls, or has not had ten
    steps to tell, this is an info. Single spikes are not meant. Adversarial and reinforcement losses have
    heavy tails, and a raised learning rate moves the norm: there the deviation is not used. Where
    gradients are clipped anyway, the clipped share must rise too, or the loss follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.statistics import mad_sigma
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History

Values = npt.NDArray[np.float64]

_WINDOW = 5
_BASE = 128
_CLIPPED_STEPS = 20


@dataclass(frozen=True)
class Limits:
    """When a gradient explodes. A guard at 0 is off.

    Attributes:
        factor: how many times the largest norm of the reference (factor).
        sigmas: robust standard deviations of the log-norm above the steps before (σ); 0 leaves this
            trigger out.
        steps: how many of five steps must be over (steps, 1 to 5).
        reference_steps: steps after warm-up that make the reference (steps, at most 100).
        reference_least: norms that must be known before anything is judged (steps).
        sigma_least: guard: smallest σ of the log-norm, because a steady run's own is tiny (log units).
        loss_factor: rise of the loss that makes an explosion critical (factor).
        loss_floor: the loss must also reach this share of its first level (share).
        clipped_rise: guard: under clipping the clipped share must rise by this much, or the loss follow
            (share).
        falling_loss: guard: 1 makes it an info while the loss falls (switch).
        wait_for_loss: guard: it is an info for so many steps, until the loss tells where it goes (steps).
        heavy_tails: guard: 1 leaves σ out for adversarial and reinforcement training (switch).
        after_lr_rise: guard: steps after a rise of the learning rate in which σ is left out (steps).
        warm_up: guard: 1 judges nothing before warm-up is over (switch).
    """

    factor: float = 10.0
    sigmas: float = 8.0
    steps: int = 3
    reference_steps: int = 100
    reference_least: int = 20
    sigma_least: float = 0.25
    loss_factor: float = 2.0
    loss_floor: float = 0.1
    clipped_rise: float = 0.1
    falling_loss: int = 1
    wait_for_loss: int = 10
    heavy_tails: int = 1
    after_lr_rise: int = 50
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    name = "grad_norm_preclip" if history.seen("grad_norm_preclip") else "grad_norm"
    start = history.warm_up_end() if limits.warm_up else 0
    norms = history.series(name)
    first = history.first(name)
    early = first.values[np.searchsorted(first.steps, start, side="right") :]
    if len(norms.steps) < limits.reference_least + _WINDOW or norms.steps[-1] <= start:
        return NotReady(f"needs {limits.reference_least} steps after warm-up")
    fresh = len(norms.steps) - int(np.searchsorted(norms.steps, history.new_from))
    tail = norms.values[-max(1, fresh) - _WINDOW + 1 :]
    least = limits.factor * early[: limits.reference_least].max(initial=0.0)
    if limits.sigmas:
        least = min(least, _least_unusual(norms.values[-len(tail) - _BASE : -len(tail)], limits))
    if np.count_nonzero(tail > least) < max(1, limits.steps):
        return []
    return _judge(history, name, start, len(tail), limits)


def _least_unusual(before: Values, limits: Limits) -> float:
    """A cheap bound below which the deviation cannot be reached: the least σ alone allows such norms."""
    if len(before) < _BASE // 2:
        return math.inf
    middle = np.partition(before, len(before) // 2)[len(before) // 2]
    return float(middle) * math.exp(limits.sigmas * limits.sigma_least)


def _judge(history: History, name: str, start: int, tail: int, limits: Limits) -> list[Finding] | NotReady:
    norms = history.series(name)
    reference = _reference(history, name, start, limits)
    if reference is None:
        return NotReady(f"needs {limits.reference_least} steps after warm-up")
    absolute = limits.factor * reference
    loss = _Loss(history, limits, int(norms.steps[-tail]))
    threshold = absolute
    relative = _relative(history, norms.values[: -tail or None], limits)
    if relative is not None and relative < absolute and (loss.follows or relative > reference):
        threshold = relative
    over = (norms.values > threshold) & (norms.steps > start)
    if not _is_often(over[-tail:], limits.steps) or not _clips_more(history, loss, limits):
        return []
    onset = _onset(norms.steps, over)
    loss = _Loss(history, limits, onset)
    peak = float(norms.values[-tail:].max())
    times = (
        f"{number(peak / reference)} times the largest of the reference" if reference > 0 else "reference 0"
    )
    return [
        Finding(
            title=f"Gradient norm {number(peak)}, {times}",
            since_step=onset,
            detail=f"Largest of the first steps after warm-up: {number(reference)}. {loss.words}".strip(),
            severity=loss.severity(heavy=_has_heavy_tails(history, limits)),
            metric=name,
            value=peak,
            threshold=float(threshold),
        )
    ]


def _reference(history: History, name: str, start: int, limits: Limits) -> float | None:
    """Largest norm of the first steps after warm-up; what explodes against those before is left out of it."""
    first, window = history.first(name), history.series(name)
    later = window.steps > max(start, int(first.steps[-1]))
    values = np.concatenate([first.values[first.steps > start], window.values[later]])
    values = values[: limits.reference_steps]
    values = values[np.isfinite(values)]
    if len(values) < max(1, limits.reference_least):
        return None
    largest = float(values[: limits.reference_least].max(initial=0.0))
    for value in values[limits.reference_least :].tolist():
        if value <= limits.factor * largest or not limits.reference_least:
            largest = max(largest, value)
    return largest


def _relative(history: History, before: Values, limits: Limits) -> float | None:
    """The norm that lies ``sigmas`` above the trend of the log-norms before, None where that says nothing."""
    rises = history.lr_rises()
    recent = bool(rises) and history.step - rises[-1] < limits.after_lr_rise
    if not limits.sigmas or recent or _has_heavy_tails(history, limits):
        return None
    known = before[-_BASE:]
    logs = np.log(known[np.isfinite(known) & (known > 0)])
    if len(logs) < _BASE // 2:
        return None
    half = len(logs) // 2
    slope = (np.median(logs[half:]) - np.median(logs[:half])) / (len(logs) - half)
    rest = logs - slope * np.arange(len(logs))
    center = float(np.median(rest))
    sigma = mad_sigma(rest)
    level = max(center + slope * len(logs), float(np.median(logs)))
    return math.exp(min(level + limits.sigmas * max(sigma, limits.sigma_least), 700.0))


def _has_heavy_tails(history: History, limits: Limits) -> bool:
    declared = history.declared.get("adversarial") or history.declared.get("reinforcement")
    several = history.layout is not None and history.layout.several_optimizers
    return bool(limits.heavy_tails) and bool(declared or several)


def _is_often(over: npt.NDArray[np.bool_], needed: int) -> bool:
    """Whether some five neighbours hold so many."""
    counts = np.convolve(over, np.ones(min(_WINDOW, len(over)), np.int64), mode="valid")
    return bool(counts.max() >= max(1, needed))


def _onset(steps: npt.NDArray[np.int64], over: npt.NDArray[np.bool_]) -> int:
    """First step over the limit after the last five that were not."""
    places = np.flatnonzero(over)
    breaks = np.flatnonzero(np.diff(places) > _WINDOW)
    return int(steps[places[int(breaks[-1]) + 1 if breaks.size else 0]])


def _clips_more(history: History, loss: _Loss, limits: Limits) -> bool:
    """Whether more steps are clipped than before; a loss that follows shows that clipping does not help."""
    if not limits.clipped_rise or loss.follows or not history.seen("clipped"):
        return True
    clipped = history.series("clipped").values
    recent, before = clipped[-_CLIPPED_STEPS:], clipped[-_BASE - _CLIPPED_STEPS : -_CLIPPED_STEPS]
    if not recent.any() or not before.size:
        return True
    return bool(recent.mean() >= before.mean() + limits.clipped_rise)


class _Loss:
    """What the loss has done since: ``follows``, ``falls`` or neither; ``early``: it may still change."""

    def __init__(self, history: History, limits: Limits, onset: int) -> None:
        steps, values = history.series("loss")
        recent, before = values[-_WINDOW:], values[: np.searchsorted(steps, onset)][-50:]
        before = before[np.isfinite(before)]
        self.follows = self.falls = self.early = False
        self.words = ""
        if not before.size:
            return
        now, level = float(np.median(recent)), float(np.median(before))
        start = float(np.median(history.first("loss", _WINDOW).values))
        risen = now > limits.loss_factor * level if before.min() > 0 else now - level > 6 * mad_sigma(before)
        self.follows = not math.isfinite(now) or (risen and not abs(now) < limits.loss_floor * abs(start))
        self.falls = bool(limits.falling_loss) and now < level
        self.early = history.step - onset < limits.wait_for_loss
        self.words = f"Loss now {number(now)}, {number(level)} in the 50 steps before."

    def severity(self, *, heavy: bool) -> Severity:
        """Critical when the loss follows, info while it falls or may; one lower for heavy-tailed losses."""
        if self.follows:
            return Severity.WARNING if heavy else Severity.CRITICAL
        return Severity.INFO if self.falls or self.early or heavy else Severity.WARNING


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.GRADIENTS,
    cause=Cause.GRADIENT,
    when=frozenset({On.STEP}),
    reads=("grad_norm",),
    uses=("grad_norm_preclip", "clipped", "loss", "lr"),
    limits=Limits(),
    find=find,
    fix="Clip the gradient norm and lower the learning rate.",
    snippet="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    resolve_after=50,
)
