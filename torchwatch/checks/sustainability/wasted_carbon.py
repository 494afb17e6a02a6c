"""Energy and CO2 that the run used after it was at its best.

What it detects
    At the end of the run, where `early-stop-opportunity` names an optimal stop: the watt-hours and grams of
    CO2 that were used after it.

Why it matters
    It is what an early stop would have saved, every time this training is repeated.

What to do
    Stop when the validation has not improved for some evaluations.

When it is fine
    Some evaluations after the best are needed to know that it was the best. Intervals are counted whole: up
    to one interval more than the part after the optimum is in the number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history.energy import Amount, origin, total, until
from torchwatch.history.optimum import optimum
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When energy counts as wasted.

    Attributes:
        evals: least evaluations after the best one (count).
    """

    evals: int = 3


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    best = optimum(history)
    if best is None:
        return NotReady("nothing finite was validated")
    whole = total(history)
    if whole.wh <= 0:
        return NotReady("no interval knows its energy")
    if best.later < max(1, limits.evals):
        return []
    before = until(history, best.step)
    wasted = Amount(whole.wh - before.wh, whole.co2_g - before.co2_g)
    if wasted.wh <= 0:
        return []
    return [
        Finding(
            title=f"{wasted.words()} were used after the best validation",
            since_step=best.step,
            detail=f"{percent(wasted.wh / whole.wh)} of the {whole.words()} of the run. {origin(history)}.",
            metric="co2_kg",
            value=wasted.co2_g / 1000,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.SUSTAINABILITY,
    cause=Cause.OTHER,
    when=frozenset({On.END}),
    reads=("val_loss", "energy_j"),
    uses=("co2_kg",),
    limits=Limits(),
    find=find,
    fix="Stop when the validation has not improved for some evaluations.",
)
