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

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import LayerInfo, Layout

_RECTIFIERS = frozenset({
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus",
    "Hardswish", "Threshold", "Softshrink", "Hardshrink", "GLU",
})  # fmt: skip
_OTHER_ACTIVATIONS = frozenset({
    "Softsign", "Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Tanhshrink", "LogSigmoid", "Softmax",
    "LogSoftmax", "Softmin", "Softmax2d",
})  # fmt: skip


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


@dataclass(frozen=True)
class _Subject:
    """Whose units an entry of the column speaks of, and how."""

    layer: str
    units: int | None
    detail: str
    flat: bool = False


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One warning per layer, and one info about all layers with fewer dead units."""
    layout = history.layout
    rows = history.columns("activations.dead_fraction", max(1, limits.observations)).values
    if layout is None or not len(rows):
        return NotReady("no sampled step yet")
    largest = np.fmax.reduce(rows[-1])
    if np.isnan(largest):
        return NotReady(f"needs {_window(history)} samples in sampled steps")
    if largest <= limits.info or len(rows) < limits.observations:
        return []
    share = np.where(np.isfinite(rows), rows, -1.0).min(axis=0)
    found: dict[str, _Dead] = {}
    for index in np.flatnonzero(share > limits.info).tolist():
        subject = _subject(layout, index, rows[-1], limits)
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


def _subject(layout: Layout, index: int, row: npt.NDArray[np.float32], limits: Limits) -> _Subject | None:
    """None where the entry says nothing about units: a raw input, a final rectifier, another activation."""
    layer = layout.layers[index]
    if layer.order is None:
        return None
    before = sorted((x for x in layout.layers if _is_before(x, layer)), key=lambda x: -(x.order or 0))
    if _is_rectifier(layer.type):
        behind = any(x.parameters and _is_before(layer, x) for x in layout.layers)
        if limits.final and not behind:
            return None
        feeder = next((x for x in before if x.parameters), None)
        fed = f"It is fed by {feeder.name or 'the model'} ({feeder.type})." if feeder else ""
        return _Subject(layer.name, _units(layer.outputs, feeder), fed)
    return _of_input(layout, layer, before, row, float(row[index])) if _reads(layer) else None


def _of_input(
    layout: Layout, reader: LayerInfo, before: list[LayerInfo], row: npt.NDArray[np.float32], share: float
) -> _Subject | None:
    """The layer whose units a Linear or Conv layer reads; only where no activation module lies between."""
    width = _input_units(reader)
    if width is None or _reads_raw_input(layout, reader, row, share):
        return None
    for layer in before:
        if _is_activation(layer.type):
            return None
        units = _units(layer.outputs, layer) if layer.parameters else None
        if units is None or "Embedding" in layer.type:
            continue
        flat = "Linear" in reader.type and units != width and width % units == 0 and _is_image(layer)
        if units == width or flat:
            name = reader.name or "the model"
            return _Subject(layer.name, units, f"Seen at the input of {name} ({reader.type}).", flat)
    return None


def _reads_raw_input(layout: Layout, reader: LayerInfo, row: npt.NDArray[np.float32], share: float) -> bool:
    """Whether it reads what the first layer reads: inputs of the same shape with the same silent features."""
    first = min(
        (i for i, x in enumerate(layout.layers) if _reads(x)), key=lambda i: layout.layers[i].order or 0
    )
    return layout.layers[first].inputs[:1] == reader.inputs[:1] and bool(row[first] == np.float32(share))


def _reads(layer: LayerInfo) -> bool:
    return layer.order is not None and ("Linear" in layer.type or layer.type.startswith("Conv"))


def _is_before(layer: LayerInfo, other: LayerInfo) -> bool:
    return layer.order is not None and other.order is not None and layer.order < other.order


def _is_rectifier(kind: str) -> bool:
    return kind in _RECTIFIERS


def _is_activation(kind: str) -> bool:
    return kind in _RECTIFIERS or kind in _OTHER_ACTIVATIONS or kind.endswith("Activation")


def _is_image(layer: LayerInfo) -> bool:
    return bool(layer.outputs) and len(layer.outputs[0]) > 2


def _input_units(reader: LayerInfo) -> int | None:
    return _units(reader.inputs, reader)


def _units(shapes: list[list[int]], nearest: LayerInfo | None) -> int | None:
    """Channels of an image, else features (last axis), as the probe counts them; None for no such shape."""
    if not shapes or len(shapes[0]) < 2:
        return None
    shape = shapes[0]
    kind = nearest.type if nearest is not None else ""
    channels_first = (len(shape) != 3 and "Linear" not in kind) or kind.startswith(("Conv", "BatchNorm"))
    return shape[1] if len(shape) == 2 or channels_first else shape[-1]


class _Dead:
    """A layer with dead units, and the limits that hold for it."""

    def __init__(self, subject: _Subject, index: int, share: float, limits: Limits) -> None:
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
    samples = history.series("samples")
    left = _window(history)
    while True:
        step = int(column.steps[place])
        at = int(np.searchsorted(samples.steps, step))
        known = at < len(samples.steps) and samples.steps[at] == step
        left -= int(samples.values[at]) if known else 1
        if left <= 0 or place == 0:
            return step
        place -= 1


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.ACTIVATION,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("activations.dead_fraction",),
    uses=("samples",),
    limits=Limits(),
    find=find,
    fix="Use LeakyReLU or GELU in place of ReLU, lower the learning rate, re-initialise the layer.",
    snippet="nn.LeakyReLU(0.01)  # instead of nn.ReLU()",
    resolve_after=50,
)
