"""The scheduler was stepped before the optimizer.

What it detects
    PyTorch's own warning that ``lr_scheduler.step()`` was called before ``optimizer.step()``, as it was
    shown while the run was watched.

Why it matters
    The first value of the schedule is skipped: with a warm-up the first step, with a schedule per epoch a
    whole epoch runs at the wrong learning rate.

What to do
    Call ``optimizer.step()`` first, then ``scheduler.step()``.

When it is fine
    Under a GradScaler the first optimizer steps may be skipped while it looks for its scale, and PyTorch
    warns although the order is right: then nothing is said. Where the host hides warnings, nothing is seen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity

if TYPE_CHECKING:
    from torchwatch.history import History

_WARNING = "lr_scheduler.step()` before `optimizer.step()`"


@dataclass(frozen=True)
class Limits:
    """When the order counts as wrong. A guard at 0 is off.

    Attributes:
        steps: steps recorded when the warning came, at most (steps): it belongs to the first step.
        scaler: guard: 1 says nothing in runs with a GradScaler or skipped steps (switch).
    """

    steps: int = 2
    scaler: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    if history.header.config.get("logs") is False:
        return NotReady("warnings of the host are not recorded")
    early = itertools.takewhile(lambda log: log.step <= limits.steps, history.logs)
    said = next((log for log in early if _WARNING in log.message), None)
    if said is None or (limits.scaler and (history.seen("grad_scale") or history.seen("skipped"))):
        return []
    return [
        Finding(
            title="lr_scheduler.step() was called before the first optimizer.step()",
            since_step=said.step,
            detail="PyTorch said so; the first value of the schedule was skipped.",
            metric="log",
            value=float(said.step),
            threshold=float(limits.steps),
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("lr",),
    uses=("log", "grad_scale", "skipped"),
    limits=Limits(),
    find=find,
    fix="Call optimizer.step() first, then scheduler.step().",
    snippet="loss.backward()\noptimizer.step()\nscheduler.step()",
)
