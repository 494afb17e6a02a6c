"""The model is trained in evaluation mode.

What it detects
    In a watched training step dropout layers, or norms with running statistics, were in evaluation mode.
    A warning where the whole model was: its own flag was off in the step's last pass, and that of every
    such layer. An info where only some were.

Why it matters
    Dropout drops nothing, and batch norms neither use nor update the statistics of the batch: the model
    is regularised less than it seems, and its norms stay as they were. It usually begins after the first
    validation.

What to do
    Call ``model.train()`` after each validation, or at the start of each epoch.

When it is fine
    Norms of a pretrained backbone are often kept in evaluation mode on purpose, and adversarial examples
    are made in it: that is only noted. So is a model of which less than half of the weights are trained,
    and one declared ``fine_tuning``. A model without dropout and running statistics has no mode.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.wiring._map import LATER, in_force, indices, is_due, left_out, listed, looks, onset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torchwatch.history import History
    from torchwatch.records import LayerInfo, Layout

_NORMS = ("BatchNorm", "SyncBatchNorm", "InstanceNorm")


@dataclass(frozen=True)
class Limits:
    """When the mode counts as wrong. A guard at 0 is off.

    Attributes:
        looks: watched training steps in evaluation mode, in a row (steps).
        trained_share: guard: below this share of trainable weights it is only noted (share).
        fine_tuning: guard: 1 only notes it in runs that are declared so (switch).
    """

    looks: int = 1
    trained_share: float = 0.5
    fine_tuning: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole run."""
    state, layout = in_force(history), history.layout
    if state is None or layout is None:
        return NotReady("not watched yet")
    if not state.get("eval_layers"):
        return []
    if not is_due(history, onset(history, _has_layers)):
        return LATER
    whole = state.get("training") is False and not _some_train(layout, state)
    since = onset(history, _in_evaluation if whole else _has_layers)
    if looks(history, since) < max(1, limits.looks):
        return []
    excuse = _excuse(history, layout, limits) if whole else ""
    return [_finding(layout, state, since, whole=whole, excuse=excuse)]


def _has_layers(state: Mapping[str, Any]) -> bool:
    return bool(state.get("eval_layers"))


def _in_evaluation(state: Mapping[str, Any]) -> bool:
    return bool(state.get("eval_layers")) and state.get("training") is False


def _some_train(layout: Layout, state: Mapping[str, Any]) -> bool:
    """Whether a layer that was called and has a mode is in training mode."""
    if left_out(state, "eval_layers"):
        return False
    evaluating = set(indices(state["eval_layers"], len(layout.layers)))
    return any(
        _has_mode(layer) and layer.order is not None and index not in evaluating
        for index, layer in enumerate(layout.layers)
    )


def _has_mode(layer: LayerInfo) -> bool:
    if layer.type.startswith(_NORMS):
        return bool(layer.attributes.get("track_running_stats"))
    return "Dropout" in layer.type and bool(layer.attributes.get("p"))


def _excuse(history: History, layout: Layout, limits: Limits) -> str:
    """Why evaluation mode may be meant; "" for no reason."""
    if limits.fine_tuning and history.declared.get("fine_tuning"):
        return "the run is declared fine-tuning"
    sizes = [(math.prod(p.shape), p.trainable) for p in layout.parameters]
    total = sum(size for size, _ in sizes)
    if total and sum(size for size, trainable in sizes if trainable) < limits.trained_share * total:
        return "most of the weights are frozen"
    return ""


def _finding(layout: Layout, state: Mapping[str, Any], since: int, *, whole: bool, excuse: str) -> Finding:
    layers = [layout.layers[i] for i in indices(state["eval_layers"], len(layout.layers))]
    more = left_out(state, "eval_layers")
    names = listed([f"{x.name} ({x.type})" for x in layers], more)
    count = len(layers) + more
    some = f"{count} layer{'s' if count > 1 else ''} with a mode {'are' if count > 1 else 'is'}"
    return Finding(
        title=f"{'The whole model is' if whole else some} in evaluation mode while it is trained",
        since_step=since,
        detail=f"In evaluation mode: {names}." + (f" Only noted, because {excuse}." if excuse else ""),
        severity=Severity.WARNING if whole and not excuse else Severity.INFO,
        metric="eval_layers",
        value=float(count),
        threshold=0.0,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.WIRING,
    cause=Cause.WIRING,
    when=frozenset({On.STEP, On.INTERVAL}),
    reads=("wiring",),
    uses=("weight_norms", "optimizer_s"),
    limits=Limits(),
    find=find,
    fix="Call model.train() after each validation, before the next training step.",
    snippet="model.eval()\nvalidate(model)\nmodel.train()",
    resolve_after=10,
)
