"""Many recurrent layers lie on top of each other.

What it detects
    More than four recurrent layers in a row (``layers``): those of one module, and of modules that feed each
    other. It is an info; where the gradients of the run vanish as well (the check ``vanishing-gradients``
    finds it too), a warning.

Why it matters
    The gradient passes through all steps of every layer, one after the other. Stacks of more than three or
    four seldom learn better, and train much slower.

What to do
    Two or three layers, residual connections around each, or layer normalisation between them.

When it is fine
    Stacks with residual connections, as in large translation and speech models, which the layout does not
    show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.checks.gradients import vanishing_gradients
from torchwatch.history.kinds import Recurrent, recurrents

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a stack is too deep. A guard at 0 is off.

    Attributes:
        layers: most layers on top of each other (layers).
        vanishing: guard: 1 makes it a warning only where gradients vanish; 0 always (switch).
    """

    layers: int = 4
    vanishing: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, for the deepest stack."""
    reason = unfit(history, "rnn")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    stack = history.of_layout("recurrent stack", lambda: _deepest(layout))
    depth = sum(r.depth for r in stack)
    if depth <= limits.layers:
        return []
    vanishing = not limits.vanishing or _vanishes(history)
    others = f" in {len(stack)} modules" if len(stack) > 1 else ""
    return [
        Finding(
            title=f"{depth} recurrent layers on top of each other"
            + (", and gradients vanish" if limits.vanishing and vanishing else ""),
            since_step=layout.step,
            detail=f"{stack[0].layer.type} layers{others}, hidden size {stack[-1].hidden}.",
            severity=Severity.WARNING if vanishing else Severity.INFO,
            layer=stack[0].layer.name,
            metric="recurrent_layers",
            value=float(depth),
            threshold=float(limits.layers),
        )
    ]


def _deepest(layout: Layout) -> list[Recurrent]:
    """The recurrent modules that follow each other in call order, each fed by the one before."""
    chains: list[list[Recurrent]] = [[]]
    for layer in recurrents(layout):
        if chains[-1] and not _feeds(chains[-1][-1], layer):
            chains.append([])
        chains[-1].append(layer)
    return max(chains, key=lambda chain: sum(r.depth for r in chain))


def _feeds(before: Recurrent, after: Recurrent) -> bool:
    """Whether the output of one may be the input of the other: as wide, and a sequence of the same length."""
    if not before.layer.outputs or not after.layer.inputs:
        return False
    given, put_out = after.layer.inputs[0], before.layer.outputs[0]
    return given == put_out and after.inputs == put_out[-1]


def _vanishes(history: History) -> bool:
    if not history.seen("grad_norms"):
        return False
    found = vanishing_gradients.find(history, vanishing_gradients.CHECK.limits)
    return isinstance(found, list) and bool(found)


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT, On.INTERVAL}),
    reads=("layout",),
    uses=("grad_norms", "update_ratios"),
    limits=Limits(),
    find=find,
    fix="Use two or three recurrent layers, residual connections, or normalisation between them.",
)
