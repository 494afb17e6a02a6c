"""Attention heads look at one key only, and did not at first.

What it detects
    In the last three measurements a head's entropy, over the logarithm of the number of valid keys (1 is
    uniform, 0 all on one key), is below 0.1, and less than half of its first value. A warning when that is so
    for at least half of a layer's heads while the loss is not at its best; else an info about all of them.

Why it matters
    Heads that collapse together come with exploding logits of query and key, and often precede a loss that
    diverges (Zhai et al. 2023). Gradients hardly pass through a softmax that is decided.

What to do
    Normalise queries and keys (QK-norm), warm the learning rate up longer and lower it, decay weights.

When it is fine
    Single heads that learn to look at the token before, or at one that serves as a sink, are how trained
    transformers work. A head that was sharp from the start is a description, not a fault, and is never
    reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import loss_is_at_its_best
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import Heads, History

_LISTED = 5

Collapsed = tuple[str, "Heads", npt.NDArray[np.bool_]]
"""Name of an attention, its heads, and which of them collapsed."""


@dataclass(frozen=True)
class Limits:
    """When attention has collapsed. A guard at 0 is off.

    Attributes:
        entropy: largest entropy of a collapsed head (0 to 1).
        observations: measurements in a row (count).
        fell: guard: it must be below this share of the head's first entropy (share).
        heads: guard: share of a layer's heads for a warning (share).
        best_loss: guard: 1 only notes it while the loss is at its best (switch).
    """

    entropy: float = 0.1
    observations: int = 3
    fell: float = 0.5
    heads: float = 0.5
    best_loss: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One warning per layer, and one info about all other collapsed heads."""
    needed = max(1, limits.observations)
    layers = history.attention()
    seen = max((len(heads.last().steps) for heads in layers.values()), default=0)
    if seen < needed:
        return NotReady(f"needs {needed} measurements of attention, {seen} seen")
    loud: list[Collapsed] = []
    quiet: list[Collapsed] = []
    for name, heads in layers.items():
        collapsed = _collapsed(heads, needed, limits)
        if collapsed.any():
            (loud if collapsed.mean() >= limits.heads else quiet).append((name, heads, collapsed))
    if limits.best_loss and loud and loss_is_at_its_best(history):
        quiet, loud = loud + quiet, []
    found = [_warning(name, heads, collapsed, limits) for name, heads, collapsed in loud]
    return found + ([_info(quiet, limits)] if quiet else [])


def _collapsed(heads: Heads, needed: int, limits: Limits) -> npt.NDArray[np.bool_]:
    recent = heads.last(needed).values
    low = np.all(recent < limits.entropy, axis=0) & (len(recent) >= needed)
    return np.asarray(low & (recent[-1] < limits.fell * heads.first) if limits.fell else low)


def _since(heads: Heads, collapsed: npt.NDArray[np.bool_], limits: Limits) -> int:
    """First measurement from which on one of the heads was below the limit."""
    steps, values = heads.last()
    since = int(steps[-1])
    for head in np.flatnonzero(collapsed).tolist():
        fine = np.flatnonzero(~(values[:, head] < limits.entropy))
        since = min(since, int(steps[fine[-1] + 1 if fine.size else 0]))
    return since


def _lowest(heads: Heads, collapsed: npt.NDArray[np.bool_]) -> float:
    return float(heads.last(1).values[0][collapsed].min())


def _warning(name: str, heads: Heads, collapsed: npt.NDArray[np.bool_], limits: Limits) -> Finding:
    lowest = _lowest(heads, collapsed)
    at_first = float(np.mean(heads.first[collapsed]))
    return Finding(
        title=f"{int(collapsed.sum())} of {heads.count} heads of {name or 'the model'} look at one key only",
        since_step=_since(heads, collapsed, limits),
        detail=f"Their lowest entropy is {number(lowest)}; at first it was {number(at_first)} in the mean.",
        layer=name.partition("#")[0],
        metric="attention.entropy",
        value=lowest,
        threshold=limits.entropy,
    )


def _info(layers: list[Collapsed], limits: Limits) -> Finding:
    count = sum(int(collapsed.sum()) for _, _, collapsed in layers)
    listed = ", ".join(f"{int(c.sum())} of {h.count} in {n or 'the model'}" for n, h, c in layers[:_LISTED])
    return Finding(
        title=f"{count} attention heads came to look at one key only",
        since_step=min(_since(heads, collapsed, limits) for _, heads, collapsed in layers),
        detail=f"{listed}.",
        severity=Severity.INFO,
        metric="attention.entropy",
        value=min(_lowest(heads, collapsed) for _, heads, collapsed in layers),
        threshold=limits.entropy,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.INTERVAL}),
    reads=("attention",),
    uses=("loss",),
    limits=Limits(),
    find=find,
    fix="Normalise queries and keys (QK-norm), warm the learning rate up longer and lower it.",
    snippet="q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # with a learnt scale",
)
