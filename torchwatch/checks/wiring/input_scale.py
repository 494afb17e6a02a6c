"""A model input is far from the scale that networks are made for.

What it detects
    Over the last 20 batches looked at, after the first 20 steps, a floating input has a mean beyond 5, a
    standard deviation above 10 or one below 0.01. An info; a warning where the loss never fell or gradients
    explode or vanish as well.

Why it matters
    Initial weights assume inputs near zero mean and unit variance. Pixels of 0…255 or raw amounts of
    money make the first layer's outputs and gradients hundreds of times too large, tiny inputs too small:
    training starts badly, or not at all.

What to do
    Subtract the mean and divide by the standard deviation of the training set, per feature or channel;
    images divided by 255 will do.

When it is fine
    Inputs whose first layer is a norm. Not judged are whole numbers (ids), masks, tensors of one axis
    (times, lengths) and further inputs that are all the same (empty states).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.gradients import exploding_gradients, vanishing_gradients
from torchwatch.checks.loss import no_learning
from torchwatch.text import number, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchwatch.history import History
    from torchwatch.records import Layout

_EFFECTS = {
    "the loss has not fallen": no_learning,
    "gradients explode": exploding_gradients,
    "gradients vanish": vanishing_gradients,
}
_BATCHES = 20
_SHAPING = ("Flatten", "Unflatten", "Identity", "Dropout", "Permute", "Rearrange", "Unfold", "Upsample")


@dataclass(frozen=True)
class Limits:
    """When the scale of an input counts as wrong. A guard at 0 is off.

    Attributes:
        mean: magnitude of the mean (units of the input).
        std_high: largest standard deviation (units of the input).
        std_low: smallest standard deviation (units of the input).
        steps: steps before anything is judged (steps).
        looks: guard: batches looked at before anything is judged (count).
        norm_first: guard: 1 judges no model whose first layer is a norm (switch).
    """

    mean: float = 5.0
    std_high: float = 10.0
    std_low: float = 0.01
    steps: int = 20
    looks: int = 5
    norm_first: int = 1


class _Level(NamedTuple):
    """Mean and standard deviation of one input over several batches."""

    name: str
    mean: float
    std: float
    batches: int
    first: int


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the input that is furthest off. It looks at intervals, and once before."""
    if history.step < limits.steps:
        return NotReady(f"needs {limits.steps} steps, {history.step} seen")
    if history.new_from <= history.step and not history.new_from <= limits.steps <= history.step:
        return NotReady("judged at the end of an interval")
    if limits.norm_first and history.layout is not None and _begins_with_norm(history.layout):
        return []
    levels = _levels(history)
    if not levels or max(level.batches for level in levels) < limits.looks:
        return NotReady("too few batches looked at") if levels else []
    off = [(distance, level) for level in levels if (distance := _distance(level, limits)) > 1]
    if not off:
        return []
    effects = [words for words, check in _EFFECTS.items() if _is_loud(history, check)]
    worst = max(off)[1]
    return [_finding(worst, _onset(history, worst, limits), effects, limits)]


def _begins_with_norm(layout: Layout) -> bool:
    """Whether the first layer called that does more than reshape is a norm."""
    called = sorted((x for x in layout.layers if x.order is not None), key=lambda x: x.order or 0)
    kinds = (x.type for x in called if not x.type.startswith(_SHAPING))
    return "Norm" in next(kinds, "")


def _levels(history: History) -> list[_Level]:
    """Of each input that is judged what its batches have in common."""
    batches: dict[str, list[tuple[float, float, int]]] = {}
    for stretch in history.stretches("inputs", _BATCHES):
        for place, tensor in enumerate(_judged(stretch.value)):
            mean, std = tensor["mean"], tensor["std"]
            if math.isfinite(mean) and math.isfinite(std) and (std or not place):
                batches.setdefault(str(tensor.get("name")), []).append((mean, std, stretch.first))
    levels = []
    for name, of in batches.items():
        mean = sum(m for m, _, _ in of) / len(of)
        power = sum(s * s + (m - mean) ** 2 for m, s, _ in of) / len(of)
        levels.append(_Level(name, mean, math.sqrt(power), len(of), of[0][2]))
    return levels


def _judged(inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Floating tensors of more than one axis that are no masks; of a loader's batch only the first."""
    tensors = inputs.get("tensors", ())
    for tensor in tensors[:1] if inputs.get("source") == "batches" else tensors:
        values = tensor.get("mean"), tensor.get("std")
        floats = all(isinstance(v, float | int) for v in values)
        if floats and len(tensor.get("shape", ())) > 1 and "mask" not in str(tensor.get("name")).lower():
            yield tensor


def _distance(level: _Level, limits: Limits) -> float:
    """How many times the limit the input is off; at most 1 is fine."""
    low = math.inf if limits.std_low and not level.std else 0.0
    return max(
        abs(level.mean) / limits.mean if limits.mean else 0.0,
        level.std / limits.std_high if limits.std_high else 0.0,
        limits.std_low / level.std if level.std else low,
    )


def _is_loud(history: History, check: Any) -> bool:
    """Whether another check, at its default limits, finds more than an info."""
    found = check.find(history, check.Limits())
    if isinstance(found, NotReady):
        return False
    return any((check.CHECK.severity if f.severity is None else f.severity) > Severity.INFO for f in found)


def _onset(history: History, level: _Level, limits: Limits) -> int:
    """The first step of the batches in a row that were off by themselves, up to those looked at."""
    since = level.first
    for stretch in reversed(history.stretches("inputs")):
        same = [t for t in _judged(stretch.value) if str(t.get("name")) == level.name]
        if stretch.first >= since or not same:
            continue
        if _distance(level._replace(mean=same[0]["mean"], std=same[0]["std"]), limits) <= 1:
            break
        since = stretch.first
    return since


def _finding(level: _Level, since: int, effects: list[str], limits: Limits) -> Finding:
    follows = f" At the same time {' and '.join(effects)}." if effects else ""
    tiny = level.std < limits.std_low and abs(level.mean) <= limits.mean
    wrong_mean = abs(level.mean) > limits.mean and level.std <= limits.std_high
    value, threshold = level.std, limits.std_low if tiny else limits.std_high
    if wrong_mean:
        value, threshold = level.mean, limits.mean
    return Finding(
        title=f"Input {printable(level.name)} has mean {number(level.mean)} and standard deviation "
        f"{number(level.std)}",
        since_step=since,
        detail=f"Over {level.batches} batches looked at.{follows}",
        severity=Severity.WARNING if effects else Severity.INFO,
        metric="inputs.mean" if wrong_mean else "inputs.std",
        value=value,
        threshold=threshold,
    )


CHECK = Check(
    severity=Severity.INFO,
    category=Category.WIRING,
    cause=Cause.INPUT,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("inputs",),
    uses=("layout", "loss", "grad_norm", "grad_norms"),
    limits=Limits(),
    find=find,
    fix="Normalise the inputs: subtract the training set's mean and divide by its standard deviation.",
    snippet="x = (x - mean) / std",
    resolve_after=2,
)
