"""What the run used: energy and CO2.

What it detects
    At the end of the run: watt-hours, grams of CO2 equivalent, mean power, and both per thousand samples, as
    far as intervals know them (runs of less than about ten seconds do not), with the word whether they were
    measured or estimated, and for which country's electricity. Over a budget that you set it is a warning.

Why it matters
    It is the number to compare two ways of training by, and to put into a report.

What to do
    Mixed precision and a full GPU do the same work with less energy; stopping early saves all of the rest.
    Set ``country`` to three letters (``DEU``) for your own grid: the world's average can be wrong by a factor
    of ten.

When it is fine
    Always, below your budget: it is a statement, not a fault. Idle power of a machine that nobody else uses,
    cooling, and making the machine are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.history.energy import J_PER_WH, origin, total
from torchwatch.text import duration, number

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """Budgets of a run, and from when on it is told. A budget or guard at 0 is off.

    Attributes:
        co2_g: budget of CO2 above which it is a warning (g).
        energy_wh: budget of energy above which it is a warning (Wh).
        least_wh: guard: energy from which it is told at all (Wh): below a minute or so it is nothing.
    """

    co2_g: float = 0.0
    energy_wh: float = 0.0
    least_wh: float = 1.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    used = total(history)
    seconds = float(history.interval_sums("metered_s").values[-1])
    if seconds <= 0:
        return NotReady("no interval knows its energy")
    over = (limits.co2_g and used.co2_g > limits.co2_g) or (limits.energy_wh and used.wh > limits.energy_wh)
    if used.wh < limits.least_wh and not over:
        return []
    samples = float(history.interval_sums("metered_samples").values[-1])
    per = ""
    if samples:
        wh, grams = (1000 * amount / samples for amount in used)
        per = f", {number(wh)} Wh and {number(grams)} g per 1,000 samples"
    by_co2 = bool(limits.co2_g)
    return [
        Finding(
            title=f"The run used {used.words()}" + (", more than its budget" if over else ""),
            since_step=history.intervals[0].first_step,
            detail=f"{number(used.wh * J_PER_WH / seconds)} W on average{per}. {origin(history)}."
            + _missing(history, seconds),
            severity=Severity.WARNING if over else Severity.INFO,
            metric="co2_kg" if by_co2 or not limits.energy_wh else "energy_j",
            value=used.co2_g / 1000 if by_co2 or not limits.energy_wh else used.wh * J_PER_WH,
            threshold=limits.co2_g / 1000 if by_co2 else limits.energy_wh * J_PER_WH or None,
        )
    ]


def _missing(history: History, seconds: float) -> str:
    """For how much of the run it is not known, where that is more than a twentieth."""
    rest = history.time_s - seconds
    return f" Not known for {duration(rest)} of the run." if rest > 0.05 * history.time_s else ""


CHECK = Check(
    severity=Severity.INFO,
    category=Category.SUSTAINABILITY,
    cause=Cause.OTHER,
    when=frozenset({On.END}),
    reads=("energy_j",),
    uses=("co2_kg", "samples"),
    limits=Limits(),
    find=find,
    fix="Compare runs by it; mixed precision, a full GPU and stopping early bring it down.",
    snippet='Watcher(model, config=WatchConfig(country="DEU"), limits={"carbon-footprint": {"co2_g": 500}})',
)
