"""The run went on after it was at its best.

What it detects
    At the end of the run: the best validation was three or more evaluations before. It names the step (and
    epoch) at which the run could have ended, and the steps, time and share that came after it. The validation
    loss decides, or a metric such as accuracy where that was best later.

Why it matters
    What came after the best evaluation cost time and energy, and without a saved checkpoint the best model is
    lost.

What to do
    Stop when the validation has not improved for some evaluations, and save the best model as it comes.

When it is fine
    Nobody knows the optimum before it has passed: some evaluations more are the price of finding it.
    Schedules that end in a long decay, and losses that rise for a long time before they fall again (grokking,
    double descent), can come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history.optimum import optimum
from torchwatch.text import duration, number, percent, printable

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When stopping earlier would have been worth while.

    Attributes:
        evals: least evaluations after the best one (count).
    """

    evals: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    best = optimum(history)
    if best is None:
        return NotReady("nothing finite was validated")
    if best.later < max(1, limits.evals):
        return []
    epochs = ""
    if best.epoch is not None and best.last_epoch is not None and best.last_epoch > best.epoch:
        epochs = f", {best.last_epoch - best.epoch} epochs"
    where = f"step {best.step}" + ("" if best.epoch is None else f" (epoch {best.epoch})")
    wasted = f"{percent(best.wasted)} of the run"
    return [
        Finding(
            title=f"The best validation was at {where}; {wasted} came after it",
            since_step=best.step,
            detail=f"{printable(best.metric, 60)} was {number(best.value)} there, and {best.later} "
            f"evaluations later none was better: {best.last_step - best.step} steps{epochs}, "
            f"{duration(max(best.end_s - best.time_s, 0.0))}.",
            metric="wasted_share",
            value=best.wasted,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.SUSTAINABILITY,
    cause=Cause.OTHER,
    when=frozenset({On.END}),
    reads=("val_loss",),
    limits=Limits(),
    find=find,
    fix="Stop when the validation has not improved for some evaluations, and save the best model.",
    snippet=(
        "if val_loss < best:\n"
        "    best, waited = val_loss, 0\n"
        '    torch.save(model.state_dict(), "best.pt")\n'
        "elif (waited := waited + 1) >= 3:\n"
        "    break\n"
    ),
)
