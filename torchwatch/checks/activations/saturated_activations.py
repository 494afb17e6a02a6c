"""A layer's sigmoid or tanh sits at its bounds.

What it detects
    In two intervals in a row more than half of the outputs of a ``Sigmoid``, ``Tanh`` or ``Softsign`` module
    lie within 0.01 of a bound. Only modules are seen, not functional calls and not the insides of LSTM and
    GRU.

Why it matters
    At its bounds the function is flat: where 0.99 is reached, sigmoid and tanh pass at most 1 and 2 percent
    of the gradient on. What lies in front of the layer hardly learns.

What to do
    Normalise what goes in (BatchNorm, LayerNorm), start with smaller weights (Xavier), lower the learning
    rate, or use ReLU or GELU.

When it is fine
    Gates are meant to open and close, and what a model puts out at its end may be as decided as it likes.
    Left out are therefore the last activation before the output or before a network that another optimizer
    trains (or nobody), modules whose output the next module does not read as it is, and those with a name
    that says gate or attention. What came to its bounds while the model learned is only noted while the loss
    is at its best; what was there at the first look, no learning has put there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up, loss_is_at_its_best, onset
from torchwatch.checks.activations._order import in_call_order, shape_of
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout

_KINDS = frozenset({"Sigmoid", "Tanh", "Softsign"})
_GATES = ("gate", "attn", "attention", "mask", "squeeze", "excit")


@dataclass(frozen=True)
class Limits:
    """When an activation is saturated. A guard at 0 is off.

    Attributes:
        share: largest share of outputs at a bound (share).
        intervals: guard: intervals in a row (count).
        gates: guard: 1 leaves out what looks like a gate or an output (switch).
        best_loss: guard: 1 only notes what was not saturated at first while the loss is at its best (switch).
        warm_up: guard: 1 leaves out intervals that end within warm-up (switch).
    """

    share: float = 0.5
    intervals: int = 2
    gates: int = 1
    best_loss: int = 1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per saturated module."""
    layout = history.layout
    medians = history.interval_columns("activations.saturated_fraction")
    start = after_warm_up(history, medians.steps, limits.warm_up)
    needed = max(1, limits.intervals)
    if layout is None or len(medians.steps) - start < needed:
        return NotReady(f"needs {needed} intervals after warm-up, {max(0, len(medians.steps) - start)} seen")
    if not (medians.values[-1] > limits.share).any():
        return []
    over = medians.values[start:] > limits.share
    at_best = bool(limits.best_loss) and loss_is_at_its_best(history)
    first = history.first_column("activations.saturated_fraction")
    found = []
    for i in np.flatnonzero(over[-needed:].all(axis=0)).tolist():
        layer, share = layout.layers[i], float(medians.values[-1, i])
        if layer.type not in _KINDS or (limits.gates and not _is_hidden(layout, i)):
            continue
        fine = at_best and not (first[i] > limits.share and over[:, i].all())
        found.append(
            Finding(
                title=f"{percent(share)} of the outputs of {layer.name or 'the model'} ({layer.type}) are at "
                "their bounds",
                since_step=onset(history, medians.steps[start:], over[:, i]),
                detail="Only noted, because the loss is at its best." if fine else "",
                severity=Severity.INFO if fine else Severity.WARNING,
                layer=layer.name,
                metric="activations.saturated_fraction",
                value=share,
                threshold=limits.share,
            )
        )
    return found


def _is_hidden(layout: Layout, index: int) -> bool:
    """Whether the next module reads the output as it is, and what follows is trained with what is before."""
    layer, order = layout.layers[index], in_call_order(layout)
    if layer.order is None or any(word in layer.name.lower() for word in _GATES):
        return False
    place = order.index(index)
    following = [layout.layers[i] for i in order[place + 1 :]]
    if not following or following[0].inputs[:1] != [shape_of(layer)]:
        return False
    reader = next((i for i in order[place + 1 :] if layout.layers[i].parameters), None)
    feeder = next((i for i in reversed(order[:place]) if layout.layers[i].parameters), None)
    if reader is None or feeder is None:
        return False
    optimizers = _optimizers(layout, feeder)
    return not optimizers or bool(optimizers & _optimizers(layout, reader))


def _optimizers(layout: Layout, layer: int) -> set[int]:
    """The optimizers that train a layer."""
    return {
        p.optimizer for p in layout.parameters if p.layer == layer and p.trainable and p.optimizer is not None
    }


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("activations.saturated_fraction",),
    uses=("loss",),
    limits=Limits(),
    find=find,
    fix="Normalise the layer's input, start with smaller weights, lower the learning rate, or use GELU.",
    snippet="nn.init.xavier_uniform_(layer.weight)",
)
