"""The loss has exactly the same value in every step.

What it detects
    At least 20 losses in a row are equal in every bit although the batches differed, after warm-up. Where
    weights move under a gradient all the same it takes 200: then the loss that is logged is not the one that
    is trained on.

Why it matters
    Every batch has its own loss, so a value that never moves does not depend on the batch: the loss is not
    computed from the model's output, or the output no longer depends on the input.

What to do
    Check that the loss that is logged is the one of this step, that it is computed from this model's output
    with its graph (no ``detach``, ``argmax`` or ``.item()`` on the way), and that targets and inputs differ.
    A loss that is equal to its margin, or to ln K, says that all outputs are the same.

When it is fine
    A loss of exactly 0 after a fall has nothing more to learn from (a hinge or a margin that every batch
    meets): it is only noted, as is a constant near the end of a fall, and any constant of adversarial and
    reinforcement losses. Losses in half precision or rounded to four decimals repeat themselves by chance,
    so there it takes 200 steps too, and a running value that is logged again and again makes stairs. Training
    on one and the same batch is left alone, and weights that stand still as well are ``no-op-step``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Values, first_level, plays_against_itself
from torchwatch.history import History
from torchwatch.text import number

_HALF_BITS = 11
_DECIMALS = 4


@dataclass(frozen=True)
class Limits:
    """When the loss is constant. A guard at 0 is off.

    Attributes:
        steps: equal losses in a row (steps).
        coarse_steps: guard: as many in a row where the value could have been rounded (to half precision, or
            to four decimals), or weights move under a gradient (steps).
        stairs: guard: as many times as long as any equal losses before (ratio).
        start_steps: a constant that begins within so many first losses was there from the start (steps).
        level: guard: a constant that came later is only noted at or below this share of the first level
            (share).
        warm_up: guard: 1 says nothing before the end of warm-up (switch).
        inputs: guard: 1 says nothing where the batches were the same, and only notes it where that is not
            known (switch).
        moving: guard: 1 says nothing where no weight moved although there was a gradient (switch).
    """

    steps: int = 20
    coarse_steps: int = 200
    stairs: float = 3.0
    start_steps: int = 20
    level: float = 0.1
    warm_up: int = 1
    inputs: int = 1
    moving: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, while the loss stands still."""
    needed = max(2, limits.steps)
    steps, values = history.series("loss")
    if values.size < needed:
        return NotReady(f"needs {needed} steps with a loss, {values.size} seen")
    value = float(values[-1])
    if values[-2] != value:
        return []
    steps, values = steps[-needed:], values[-needed:]
    if values[0] != value or not math.isfinite(value) or (values != value).any():
        return []
    if limits.warm_up and history.step <= history.warm_up_end():
        return []
    if limits.coarse_steps > needed and (_is_coarse(value) or _learns(history, needed)):
        steps, values = history.series("loss", limits.coarse_steps)
        if values.size < limits.coarse_steps or (values != value).any():
            return []
    differ = _inputs_differ(history, int(steps[0]))
    if limits.stairs and _is_staircase(history.series("loss").values, limits):
        return []
    if (limits.inputs and differ is False) or (limits.moving and _stands_still(history, needed)):
        return []
    return [_finding(history, value, differ=differ, limits=limits)]


def _is_coarse(value: float) -> bool:
    """Whether the value has few enough digits to have been rounded; 0 is a value of its own."""
    if not value:
        return False
    mantissa = math.ldexp(math.frexp(value)[0], _HALF_BITS)
    return abs(mantissa - round(mantissa)) < 1e-5 or math.isclose(
        value, round(value, _DECIMALS), rel_tol=1e-9
    )


def _inputs_differ(history: History, since: int) -> bool | None:
    """Whether different batches were seen since a step; None where none was seen."""
    seen = {s.value for s in history.stretches("fingerprint") if s.last >= since}
    return len(seen) > 1 if seen else None


def _stands_still(history: History, count: int) -> bool:
    ratios, norms = history.series("update_ratio", count).values, history.series("grad_norm", count).values
    return bool(ratios.size and not ratios.any() and norms.any())


def _learns(history: History, count: int) -> bool:
    """Whether weights move under a gradient, as far as it was measured."""
    ratios, norms = history.series("update_ratio", count).values, history.series("grad_norm", count).values
    return bool(ratios.any() and norms.any())


def _is_staircase(values: Values, limits: Limits) -> bool:
    """Whether the losses before the last stretch of equal ones came in stretches not much shorter."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    lengths = np.diff(ends, prepend=-1)
    return bool(lengths.size > 1 and lengths[-1] < limits.stairs * lengths[:-1].max())


def _onset(history: History, value: float, limits: Limits) -> tuple[int, bool]:
    """First step of the constant stretch as far as it is known, and whether that is the start of the run."""
    steps, values = history.series("loss")
    others = np.flatnonzero(values != value)
    first = history.first("loss")
    if others.size:
        since = int(steps[others[-1] + 1])
        return since, since <= _last_of_start(first.steps, limits)
    early = np.flatnonzero(first.values != value)
    begin = int(early[-1]) + 1 if early.size else 0
    if begin >= first.steps.size:
        return int(steps[0]), False
    older = history.older("loss").values
    if older.size and not np.allclose(older[1:], value, rtol=1e-9, atol=0):
        return int(steps[0]), False
    since = int(first.steps[begin])
    return since, since <= _last_of_start(first.steps, limits)


def _last_of_start(steps: np.ndarray[tuple[int], np.dtype[np.int64]], limits: Limits) -> int:
    return int(steps[: limits.start_steps][-1]) if steps.size and limits.start_steps else 0


def _finding(history: History, value: float, *, differ: bool | None, limits: Limits) -> Finding:
    onset, from_start = _onset(history, value, limits)
    gradient = history.series("grad_norm", 1).values
    reason = _excuse(history, value, differ=differ, from_start=from_start, limits=limits)
    if reason is None and value == 0 and gradient.any():
        reason = "there is a gradient all the same, as in losses whose value means nothing"
    sure = from_start and not _is_coarse(value) and not _learns(history, max(2, limits.steps))
    severity = Severity.INFO if reason else Severity.CRITICAL if sure else Severity.WARNING
    gradients = f" The gradient norm is {number(float(gradient[0]))}." if gradient.size else ""
    return Finding(
        title=f"Loss is exactly {number(value)} in every step since step {onset}",
        since_step=onset,
        detail=("The batches differed. " if differ else "Whether the batches differed was not seen. ")
        + ("So it was from the start." if from_start else f"First level {number(first_level(history))}.")
        + gradients
        + (f" Only noted, because {reason}." if reason else ""),
        severity=severity,
        metric="loss",
        value=value,
        threshold=float(limits.steps),
    )


def _excuse(
    history: History, value: float, *, differ: bool | None, from_start: bool, limits: Limits
) -> str | None:
    """Why a constant may be as it should be."""
    if limits.inputs and differ is None:
        return "the batches were not seen"
    if not from_start and value == 0:
        return "there is nothing left to learn at a loss of 0"
    first = first_level(history)
    if not from_start and limits.level and first is not None and abs(value) <= limits.level * abs(first):
        return "the loss had come down before"
    return plays_against_itself(history)


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.LOSS,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("loss",),
    uses=("fingerprint", "update_ratio", "grad_norm", "lr"),
    limits=Limits(),
    find=find,
    fix=(
        "Compute the loss from this step's output with its graph (no detach, argmax or item on the way), log "
        "that one, and look whether labels and outputs differ within a batch."
    ),
    snippet=(
        "logits = model(x)\n"
        "print(logits.std(dim=0), y.unique())  # both must vary\n"
        "loss = loss_function(logits, y)  # not logits.argmax(1), not logits.detach()\n"
        "loss.backward()\n"
    ),
    resolve_after=20,
)
