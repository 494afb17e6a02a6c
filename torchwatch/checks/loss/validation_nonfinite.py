"""The validation loss is NaN or infinite.

What it detects
    The last evaluation gave a validation loss that is no number, whatever the training loss is. One such
    evaluation is noted; three in a row, after the first five of the run, are a warning.

Why it matters
    Early stopping, schedulers that wait for a plateau and the choice of the best checkpoint compare with
    that number, and every comparison with NaN is false: they stop working without a word.

What to do
    Evaluate the batches one by one and find the one whose loss is no number: an empty target, a class
    without samples, log(0) in a metric, or an overflow in half precision, which evaluation often uses
    although training does not. Averages over batches should leave out empty ones.

When it is fine
    In the first epochs some detection losses have nothing to compare with yet and are NaN until boxes are
    found: then it resolves by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.text import printable

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When it is more than a note. A guard at 0 is off.

    Attributes:
        evals: evaluations in a row from which it is a warning (count).
        early: guard: so many first evaluations of a run are never more than noted (count).
    """

    evals: int = 3
    early: int = 5


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, while the last evaluation is no number."""
    name = history.val_loss_name()
    values = None if name is None else history.eval_series(name)
    if name is None or values is None or not values.values.size:
        return NotReady("no evaluation with a validation loss yet")
    bad = ~np.isfinite(values.values)
    if not bad[-1]:
        return []
    fine = np.flatnonzero(~bad)
    began = int(fine[-1]) + 1 if fine.size else 0
    lasted = bad.size - began
    loud = lasted >= max(1, limits.evals) and bad.size > limits.early
    last = (
        "It was never a number." if not fine.size else f"The last number was {values.values[fine[-1]]:.4g}."
    )
    return [
        Finding(
            title=f"The validation loss is {_word(float(values.values[-1]))} in {lasted} evaluations in a row"
            if lasted > 1
            else f"The validation loss is {_word(float(values.values[-1]))}",
            since_step=int(values.steps[began]),
            detail=f"{printable(name, 60)} at step {int(values.steps[-1])}. {last}",
            severity=Severity.WARNING if loud else Severity.INFO,
            metric=name,
            threshold=float(limits.evals),
        )
    ]


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else "infinite"


CHECK = Check(
    severity=Severity.INFO,
    category=Category.LOSS,
    cause=Cause.LOSS,
    when=frozenset({On.EVAL}),
    reads=("val_loss",),
    limits=Limits(),
    find=find,
    fix="Find the batch of the validation set whose loss is no number: empty targets, log(0), an overflow.",
    snippet=(
        "for i, (x, y) in enumerate(val_loader):\n"
        "    loss = criterion(model(x), y)\n"
        "    assert torch.isfinite(loss), f'batch {i}: {loss}, targets {y.min()} to {y.max()}'\n"
    ),
    resolve_after=1,
)
