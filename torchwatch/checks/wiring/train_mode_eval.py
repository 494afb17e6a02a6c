"""The evaluation ran with dropout active.

What it detects
    Between the last training step and an evaluation the model ran without gradients while a dropout layer
    was in training mode. It is judged where those passes were seen: after a loop over ``watch.batches``,
    around sampled steps, or with the sentinel on.

Why it matters
    Dropout makes the validation numbers worse and noisy: early stopping, schedules and comparisons
    follow that noise. Batch norms take the validation data into their running statistics as well.

What to do
    ``model.eval()`` before the evaluation, ``model.train()`` after it.

When it is fine
    Monte Carlo dropout: declare ``mc_dropout``. Where such passes come with steps that no evaluation
    follows (rollouts, a frozen generator, hard examples), they are part of the training and nothing is
    said; the same goes for runs declared ``reinforcement``. Renewing the statistics of batch norms in
    training mode right before the evaluation looks the same and is not meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When an evaluation counts as wrong. A guard at 0 is off.

    Attributes:
        evals: evaluations in a row that were seen with dropout active (count).
        elsewhere: guard: 1 says nothing where such passes also come with other steps (switch).
        declared: guard: 1 says nothing in runs declared ``mc_dropout`` or ``reinforcement`` (switch).
    """

    evals: int = 1
    elsewhere: int = 1
    declared: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    if limits.declared and (history.declared.get("mc_dropout") or history.declared.get("reinforcement")):
        return []
    if not _has_dropout(history):
        return []
    seen, elsewhere = _evaluations(history)
    if not seen:
        return NotReady("no pass of an evaluation was seen")
    if limits.elsewhere and elsewhere:
        return []
    active: list[int] = []
    for step, dropout in seen:
        active = [*active, step] if dropout else []
    if len(active) < max(1, limits.evals):
        return []
    many = f"The last {len(active)} evaluations that were seen" if len(active) > 1 else "The evaluation"
    return [
        Finding(
            title=f"{many} ran with dropout active",
            since_step=active[0],
            detail=f"After step {active[-1]} the model ran without gradients in training mode.",
            metric="evaluation_dropout",
            value=float(len(active)),
            threshold=float(max(1, limits.evals)),
        )
    ]


def _has_dropout(history: History) -> bool:
    """Whether the model has a dropout layer that drops something; in doubt it has."""
    return history.layout is None or any(
        "Dropout" in layer.type and layer.attributes.get("p", 1) != 0 for layer in history.layout.layers
    )


def _evaluations(history: History) -> tuple[list[tuple[int, bool]], bool]:
    """Step and dropout of every evaluation that was seen, and whether dropout ran at other steps too.

    What is looked at after an evaluation was logged, or before the first step, belongs to the step after.
    """
    evaluated = {e.step for e in history.evals}
    after = {step + 1 for step in evaluated}
    seen: list[tuple[int, bool]] = []
    elsewhere = False
    for stretch in history.stretches("wiring"):
        dropout = stretch.value.get("evaluation_dropout")
        if dropout is not None and stretch.first in evaluated:
            seen.append((stretch.first, bool(dropout)))
        elif dropout and stretch.first not in after:
            elsewhere = True
    return seen, elsewhere


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.EVAL}),
    reads=("wiring",),
    limits=Limits(),
    find=find,
    fix="Call model.eval() before the evaluation and model.train() after it.",
    snippet="model.eval()\nwith torch.no_grad():\n    validate(model)\nmodel.train()",
    resolve_after=2,
)
