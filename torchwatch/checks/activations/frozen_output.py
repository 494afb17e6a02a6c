"""A layer puts out exactly the same whatever goes in.

What it detects
    In all sampled steps of an interval, at least three, the spread of a layer's output across the batch is
    no more than rounding (a millionth of its scale) although the inputs differ. Two kinds of layers are
    judged: the last one, so the model's own output, if it never was otherwise; and any layer that once put
    out different things but is too small for ``activation-collapse``.

Why it matters
    A model whose output does not depend on its input cannot learn more than one constant. From the start
    that is a mistake in its wiring: a wrong variable, a detached or overwritten tensor, a multiplication by
    zero.

What to do
    Follow the input through ``forward``: print ``x.std(0).max()`` after each layer and see where it
    becomes 0.

When it is fine
    Embeddings of positions, learnt queries and what is computed from them do not depend on the sample by
    design; only the model's last layer is therefore judged from the start. Outputs that are all zero in a
    layer before belong to ``dead-units``. Batches of one sample tell nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._intervals import after_warm_up
from torchwatch.checks.activations._order import in_call_order, samples_and_features, shape_of
from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import Columns, History
    from torchwatch.records import Layout

_COLLAPSE_SAMPLES, _COLLAPSE_FEATURES = 8, 16


@dataclass(frozen=True)
class Limits:
    """When an output is frozen. A guard at 0 is off.

    Attributes:
        batch_std: largest standard deviation across the batch that is rounding (share of the rms).
        observations: sampled steps in a row (count).
        inputs: guard: 1 asks for evidence that the inputs differ (switch).
        dead: guard: 1 leaves it to ``dead-units`` where a layer before puts out zeros only (switch).
        warm_up: guard: 1 judges nothing before warm-up is over (switch).
    """

    batch_std: float = 1e-6
    observations: int = 3
    inputs: int = 1
    dead: int = 1
    warm_up: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per frozen layer."""
    layout, needed = history.layout, max(1, limits.observations)
    spread = history.columns("activations.batch_std")
    start = after_warm_up(history, spread.steps, limits.warm_up)
    if layout is None or len(spread.steps) - start < needed:
        return NotReady(f"needs {needed} sampled steps after warm-up")
    since = history.intervals[-1].first_step if history.intervals else history.step
    count = max(needed, len(spread.steps) - max(start, int(np.searchsorted(spread.steps, since))))
    constant: npt.NDArray[np.bool_] = np.all(spread.values[-count:] <= limits.batch_std, axis=0)
    if not constant.any() or not _has_batches(history, layout, spread.steps[-count:]):
        return []
    order = in_call_order(layout)
    varies = [i for i in order if not constant[i] and (spread.values[-1, i] > limits.batch_std)]
    if limits.inputs and not varies and not _inputs_differ(history, spread.steps[-count:]):
        return []
    silent = _zero(history, count)
    found = []
    for place, i in enumerate(order):
        if constant[i] and not (limits.dead and silent[order[:place]].any()):
            kind = _kind(history, layout, order, place, constant, limits)
            if kind and (place == len(order) - 1 or not silent[i]):
                found.append(_finding(layout, i, spread, kind, limits))
    return found


def _kind(
    history: History,
    layout: Layout,
    order: list[int],
    place: int,
    constant: npt.NDArray[np.bool_],
    limits: Limits,
) -> str:
    """Why a constant layer is judged; "" where it is not."""
    layer = order[place]
    samples, features = samples_and_features(layout.layers[layer])
    once = _once_differed(history, layer, limits)
    last = place == len(order) - 1
    if last and not once:
        batch = shape_of(layout.layers[layer])[:1]
        inputs = layout.layers[order[0]].inputs
        return "It was so from the start." if samples > 1 and inputs and inputs[0][:1] == batch else ""
    small = samples < _COLLAPSE_SAMPLES or shape_of(layout.layers[layer])[-1:] < [_COLLAPSE_FEATURES]
    first = place == 0 or not constant[order[place - 1]]
    return "It once put out different things." if once and small and features and first else ""


def _once_differed(history: History, layer: int, limits: Limits) -> bool:
    """Whether the output depended on the sample in any observation that is remembered."""
    name = "activations.batch_std"
    first = history.first_column(name)[layer]
    known = [history.columns(name).values[:, layer], history.interval_columns(name).values[:, layer]]
    return bool(first > limits.batch_std or any((values > limits.batch_std).any() for values in known))


def _has_batches(history: History, layout: Layout, steps: npt.NDArray[np.int64]) -> bool:
    """Whether the batches had two samples or more."""
    known = [history.value_at("inputs", int(step)) for step in steps]
    sizes = [k.get("batch") for k in known if isinstance(k, Mapping)]
    numbers = [s for s in sizes if isinstance(s, int)]
    if numbers:
        return min(numbers) > 1
    return any(samples_and_features(x)[0] > 1 for x in layout.layers)


def _inputs_differ(history: History, steps: npt.NDArray[np.int64]) -> bool:
    """Whether the model was given different batches, each of different numbers."""
    prints = {history.value_at("fingerprint", int(step)) for step in steps} - {None}
    for step in steps:
        given = history.value_at("inputs", int(step))
        tensors = given.get("tensors") if isinstance(given, Mapping) else None
        for tensor in tensors if isinstance(tensors, list) else ():
            low, high = tensor.get("low"), tensor.get("high")
            if low is not None and high is not None and high > low:
                return len(prints) > 1
    return False


def _zero(history: History, count: int) -> npt.NDArray[np.bool_]:
    """Layers that put out nothing but zeros."""
    rms = history.columns("activations.rms", count).values
    return np.asarray((rms == 0).all(axis=0))


def _finding(layout: Layout, index: int, spread: Columns, kind: str, limits: Limits) -> Finding:
    layer = layout.layers[index]
    differed = np.flatnonzero(~(spread.values[:, index] <= limits.batch_std))
    value = float(spread.values[-1, index])
    return Finding(
        title=f"{layer.name or 'The model'} puts out the same for every sample, although the inputs differ",
        since_step=int(spread.steps[differed[-1] + 1 if differed.size else 0]),
        detail=f"{kind} Standard deviation across the batch {number(value)} of its rms.",
        layer=layer.name,
        metric="activations.batch_std",
        value=value,
        threshold=limits.batch_std,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ACTIVATIONS,
    cause=Cause.WIRING,
    when=frozenset({On.INTERVAL}),
    reads=("activations.batch_std", "activations.rms"),
    uses=("inputs", "fingerprint"),
    limits=Limits(),
    find=find,
    fix="Follow the input through forward() and find where it is dropped, overwritten or multiplied by zero.",
    snippet="print(name, x.std(0).max())  # after each layer: where does it become 0?",
)
