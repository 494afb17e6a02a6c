"""Units of a layer are dead: they put out zero for every sample.

What it detects
    The share of a layer's units (channels, features) whose activation stayed at zero (at most 1e-6) for
    every sample and position of the last 512 or more samples. It is read after the activation: from the
    output of rectifier modules, and from the input of Linear and Conv layers, which shows a functional
    ReLU too. The layer named is the one whose units died; the layer that feeds or reads it is in the
    detail. The onset is where those samples began.

Why it matters
    A dead rectifier passes no gradient, so it never comes back: the layer has become narrower for good.
    Above half of the units the network usually stops learning.

What to do
    LeakyReLU or GELU in place of ReLU, a lower learning rate (one large step is enough to kill units),
    and a fresh initialisation of the layer, biases included.

When it is fine
    Zero entries are sparsity, never death: a healthy ReLU puts out about half of them. Pruned layers and
    sparse autoencoders have silent units by design. Constant inputs (pixels of an image's border) are no
    units, and a rectifier at the very end of the model may have outputs that are always zero. Where the
    input of a layer is a flattened image, its features are positions of channels, of which many are
    always zero: there the limits are higher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.activations._order import in_call_order
from torchwatch.checks.activations._units import Subject, subject_of

if TYPE_CHECKING:
    from torchwatch.history import History

_LISTED = 5


@dataclass(frozen=True)
class Limits:
    """When units count as dead. A guard at 0 is off.

    Attributes:
        info: share of a layer's units above which it is an info (share).
        warning: share above which it is a warning (share).
        flat_info: guard: ``info`` for the flattened input of a Linear layer (share).
        flat_warning: guard: ``warning`` for it (share).
        observations: guard: observations in a row that must be over (count).
        least_units: guard: a layer with fewer units is never more than an info (units).
        final: guard: 1 leaves out rectifiers after which no layer with weights is called (switch).
    """

    info: float = 0.1
    warning: float = 0.5
    flat_info: float = 0.5
    flat_warning: float = 0.9
    observations: int = 2
    least_units: int = 8
    final: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One warning per layer, and one info about all layers with fewer dead units."""
    layout = history.layout
    steps, rows = history.columns("activations.dead_fraction", max(1, limits.observations))
    if layout is None or not len(rows) or steps[-1] < history.new_from:
        return NotReady("no sampled step among these")
    largest = np.fmax.reduce(rows[-1])
    if np.isnan(largest):
        return NotReady(f"needs {_window(history)} samples in sampled steps")
    if largest <= limits.info or len(rows) < limits.observations:
        return []
    share = np.where(np.isfinite(rows), rows, -1.0).min(axis=0)
    order = in_call_order(layout)
    found: dict[str, _Dead] = {}
    for index in np.flatnonzero(share > limits.info).tolist():
        subject = subject_of(layout, order, index, rows[-1], final=bool(limits.final))
        if subject is not None:
            dead = _Dead(subject, index, float(share[index]), limits)
            known = found.get(subject.layer)
            if dead.share > dead.info and (known is None or dead.share > known.share):
                found[subject.layer] = dead
    loud = [_warning(history, d) for d in found.values() if d.is_loud]
    return loud + _infos(history, [d for d in found.values() if not d.is_loud])


def _window(history: History) -> int:
    """Samples over which a unit must be silent."""
    samples = history.header.config.get("dead_window_samples", 512)
    return samples if isinstance(samples, int) else 512


class _Dead:
    """A layer with dead units, and the limits that hold for it."""

    def __init__(self, subject: Subject, index: int, share: float, limits: Limits) -> None:
        self.subject, self.index, self.share = subject, index, share
        self.info = limits.flat_info if subject.flat and limits.flat_info else limits.info
        self.warning = limits.flat_warning if subject.flat and limits.flat_warning else limits.warning
        enough = subject.units is None or subject.units >= limits.least_units
        self.is_loud = share > self.warning and enough

    def words(self) -> str:
        """How much of what is dead."""
        units = "" if self.subject.units is None else f"{self.subject.units} "
        what = "inputs made of the channels" if self.subject.flat else f"{units}units"
        return f"{self.share:.0%} of the {what} of {self.subject.layer or 'the model'}"


def _warning(history: History, dead: _Dead) -> Finding:
    """A layer of its own; it began where half the limit was passed: a few were often dead from the start."""
    return Finding(
        title=f"{dead.words()} are dead",
        since_step=_onset(history, dead.index, max(dead.info, dead.warning / 2)),
        detail=f"Zero for every one of the last {_window(history)} samples looked at. {dead.subject.detail}",
        layer=dead.subject.layer,
        metric="activations.dead_fraction",
        value=dead.share,
        threshold=dead.warning,
    )


def _infos(history: History, dead: list[_Dead]) -> list[Finding]:
    """One for the whole run, so that a layer that dies later has its own onset and incident."""
    if not dead:
        return []
    worst = max(dead, key=lambda d: d.share)
    more = f", and some of {len(dead) - 1} more layers" if len(dead) > 1 else ""
    listed = "; ".join(d.words() for d in dead[:_LISTED])
    return [
        Finding(
            title=f"{worst.words()} are dead{more}",
            since_step=min(_onset(history, d.index, d.info) for d in dead),
            detail=f"Zero for every one of the last {_window(history)} samples looked at: {listed}.",
            severity=Severity.INFO,
            metric="activations.dead_fraction",
            value=worst.share,
            threshold=worst.info,
        )
    ]


def _onset(history: History, index: int, limit: float) -> int:
    """Where the samples began that the first observation over the limit speaks of."""
    column = history.columns("activations.dead_fraction")
    fine = np.flatnonzero(~(column.values[:, index] > limit))
    place = int(fine[-1]) + 1 if fine.size else 0
    before = history.cached("dead-units: samples", lambda: _samples_before(history, column.steps))
    start = np.searchsorted(before[: place + 1], before[place + 1] - _window(history), side="right")
    return int(column.steps[max(0, int(start) - 1)])


def _samples_before(history: History, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How many samples were looked at before each of the observations and after the last, (n + 1,)."""
    samples = history.series("samples")
    counts = np.ones(len(steps))
    if len(samples.steps):
        at = np.minimum(np.searchsorted(samples.steps, steps), len(samples.steps) - 1)
        known = samples.steps[at] == steps
        counts[known] = samples.values[at[known]]
    return np.concatenate([np.zeros(1), np.cumsum(counts)])


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.STEP}),
    reads=("activations.dead_fraction",),
    uses=("samples",),
    limits=Limits(),
    find=find,
    fix="Use LeakyReLU or GELU in place of ReLU, lower the learning rate, re-initialise the layer.",
    snippet="nn.LeakyReLU(0.01)  # instead of nn.ReLU()",
    resolve_after=10,
)
