"""The model is trained on the same batch again and again.

What it detects
    The input of the model was the same in five observed steps in a row, after at least five steps in
    which it changed at every one. Where inputs are seen on sampled steps only, a loader of fixed order
    that comes round between two looks is told apart by what was seen before.

Why it matters
    The model fits one batch and forgets the rest. The training loss looks excellent, and only the
    validation tells.

What to do
    Take the batch from the loader inside the loop, and do not make the iterator anew in every step:
    ``next(iter(loader))`` always gives the first batch of an unshuffled loader.

When it is fine
    Overfitting one batch as a test, full-batch training, several updates per batch as in PPO, and points
    that are drawn anew now and then: all of them repeat batches from the start, and this is about runs
    that did not. LBFGS evaluates one batch many times and is left alone.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchwatch.history import History, Stretch


@dataclass(frozen=True)
class Limits:
    """When a batch counts as repeated. A guard at 0 is off.

    Attributes:
        steps: observed steps in a row with the same input (steps).
        changing: guard: observed steps before them in which the input changed at every one (steps).
        period: guard: 1 also excludes a loader of fixed order that comes round between two looks (switch).
        line_search: guard: 1 judges no run with LBFGS (switch).
    """

    steps: int = 5
    changing: int = 5
    period: int = 1
    line_search: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    seen = history.stretches("fingerprint")
    if not seen:
        return NotReady("no input seen yet")
    last = seen[-1]
    if last.first == last.last and (len(seen) < 2 or seen[-2].value != last.value):
        return []
    return history.cached("repeated-batch", lambda: _repeated(history, seen, limits))


def _repeated(history: History, seen: Sequence[Stretch], limits: Limits) -> list[Finding]:
    start = len(seen)
    while start and seen[start - 1].value == seen[-1].value:
        start -= 1
    run, before = seen[start:], seen[:start]
    count = sum(s.last - s.first + 1 for s in run)
    if count < max(2, limits.steps) or not _changed_before(run, before, limits):
        return []
    optimizers = history.layout.optimizers if history.layout is not None else ()
    if limits.line_search and any("LBFGS" in o.type for o in optimizers):
        return []
    return [
        Finding(
            title=f"The same batch in {count} observed steps in a row",
            since_step=run[0].first,
            detail=f"Fingerprint {printable(run[0].value)} from step {run[0].first} to {run[-1].last}; "
            f"before that the input changed in each of {len(before)} observed steps.",
            metric="fingerprint",
            value=float(count),
            threshold=float(max(2, limits.steps)),
        )
    ]


def _changed_before(run: Sequence[Stretch], before: Sequence[Stretch], limits: Limits) -> bool:
    """Whether the input changed at every observed step before, and could have been seen to change since."""
    if limits.changing:
        values = [s.value for s in (*before, run[0])]
        neighbours = any(a == b for a, b in itertools.pairwise(values))
        if len(before) < limits.changing or neighbours or any(s.first != s.last for s in before):
            return False
    if not limits.period or any(s.first != s.last for s in run):
        return True
    # All looks of the run may hit the same place of a fixed order whose period divides their distances. An
    # earlier pair of different inputs at such a distance excludes it.
    distance = math.gcd(*(s.first - run[0].first for s in run))
    places: dict[int, str] = {}
    return any(places.setdefault(s.first % distance, s.value) != s.value for s in before)


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP}),
    reads=("fingerprint",),
    limits=Limits(),
    find=find,
    fix="Take each batch from one iterator over the loader, inside the loop.",
    snippet="for x, y in loader:  # not: x, y = next(iter(loader))\n    ...",
    resolve_after=10,
)
