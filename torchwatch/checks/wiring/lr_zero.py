"""The learning rate is zero.

What it detects
    The learning rate of every parameter group was 0 in twenty steps in a row after warm-up. A warning
    where it never was anything else, where it jumped to 0, and where it stays 0 for long after it has
    decayed there; an info while what is left of such a decay is no longer than an epoch, a tenth of the
    run, or a hundred steps.

Why it matters
    No weight changes. The rest of the run costs the same as before and teaches the model nothing.

What to do
    Look at the scheduler: its number of steps against those really made, steps against epochs, and a
    factor that begins at 0. Where training is over, stop.

When it is fine
    The first steps of a warm-up, and the end of a schedule that decays to 0. A rate of 0 for a while to
    renew statistics of norms is a reason to ignore the check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a rate of 0 is wrong. A guard at 0 is off.

    Attributes:
        steps: steps in a row with a rate of 0 (steps).
        warm_up: guard: 1 does not count the steps of warm-up (switch).
        decayed: guard: a rate that was below this share of its maximum before it became 0 has decayed
            (share).
        rest_steps: guard: after a decay it is only noted for so many steps (steps) …
        rest_share: guard: … or this share of all steps (share), or one epoch, whichever is longest.
    """

    steps: int = 20
    warm_up: int = 1
    decayed: float = 0.1
    rest_steps: int = 100
    rest_share: float = 0.1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    last = history.series("lr", 1)
    if not last.values.size:
        return NotReady("no learning rate seen")
    if last.values[0] != 0:
        return []
    since, before = _became(history)
    counted = since
    if limits.warm_up and not _was_positive(history):
        counted = max(since, history.warm_up_end() + 1)
    if history.step - counted + 1 < max(1, limits.steps):
        return NotReady("the learning rate is 0 and may be warming up") if counted > since else []
    return [_finding(history, since, before, limits)]


def _became(history: History) -> tuple[int, float | None]:
    """The first step with a rate of 0 since another one, and that other one; of old steps about."""
    rates, older = history.series("lr"), history.older("lr")
    moving = np.flatnonzero(rates.values != 0)
    if moving.size:
        return int(rates.steps[moving[-1] + 1]), float(rates.values[moving[-1]])
    before = np.flatnonzero(older.values > 0)
    if before.size:
        return int(older.steps[before[-1]]) + 1, float(older.values[before[-1]])
    return int((older.steps if older.steps.size else rates.steps)[0]), None


def _was_positive(history: History) -> bool:
    best = history.first("lr").values
    return bool(best.size and best.max() > 0) or bool((history.older("lr").values > 0).any())


def _finding(history: History, since: int, before: float | None, limits: Limits) -> Finding:
    count = history.step - since + 1
    highest = _highest(history)
    rest = before is not None and before < limits.decayed * highest and count <= _rest(history, limits)
    if highest <= 0:
        detail = "It has been 0 from the first step on."
    else:
        detail = f"It was {number(before)} before, and its maximum {number(highest)}."
    if rest:
        detail += " Only noted, because it has decayed to 0 and the run may be about to end."
    return Finding(
        title=f"The learning rate of every group has been 0 for {count} steps",
        since_step=since,
        detail=detail,
        severity=Severity.INFO if rest else Severity.WARNING,
        metric="lr",
        value=0.0,
        threshold=float(max(1, limits.steps)),
    )


def _highest(history: History) -> float:
    known = (history.first("lr").values, history.older("lr").values, history.series("lr").values)
    return max((float(values.max()) for values in known if values.size), default=0.0)


def _rest(history: History, limits: Limits) -> float:
    """How long a rate that has decayed to 0 may stay there (steps)."""
    if not limits.rest_steps and not limits.rest_share:
        return 0.0
    epoch = history.epochs[-1].steps if history.epochs else 0
    return max(float(limits.rest_steps), limits.rest_share * history.steps_seen, float(epoch))


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("lr",),
    limits=Limits(),
    find=find,
    fix="Correct the scheduler: its number of steps, where it is stepped, and the factor it begins with.",
    resolve_after=1,
)
