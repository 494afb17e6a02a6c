"""Where an autopsy shows what an incident speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report.document import Block, See

if TYPE_CHECKING:
    from torchwatch.engine import Incident
    from torchwatch.results import Autopsy, Outcome, Remark

_BY_CATEGORY: dict[str, tuple[str, ...]] = {
    "activations": ("activations",),
    "gradients": ("gradient_flow", "activations"),
    "loss": ("relearning", "predictions", "baselines"),
    "wiring": ("gradient_flow", "relearning"),
    "architecture": ("relearning", "activations"),
}
_BY_CHECK: dict[str, tuple[str, ...]] = {
    "attention-entropy-collapse": ("attention",),
    "below-baseline": ("baselines", "predictions"),
    "class-ignored": ("predictions", "groups", "data_quality"),
    "constant-loss": ("predictions", "gradient_flow"),
    "input-nonfinite": ("data_quality",),
    "input-scale": ("data_quality",),
    "no-learning": ("predictions", "relearning"),
    "overfitting": ("relearning", "data_quality"),
    "repeated-batch": ("data_quality",),
    "train-val-leakage": ("data_quality",),
    "unused-parameters": ("gradient_flow",),
    "zero-gradient-layer": ("gradient_flow",),
}
"""Checks that another examination shows than their category's."""

_RANK = {"critical": 0, "warning": 1, "info": 2}


def examinations_of(check: str, category: str) -> tuple[str, ...]:
    """The examinations that show what a check found, the nearest first; none for throughput and the like."""
    return _BY_CHECK.get(check, _BY_CATEGORY.get(category, ()))


def seen_in(incident: Incident, autopsy: Autopsy | None) -> list[Block]:
    """Pointers from an incident to the sections that show it, each with what was seen there."""
    if autopsy is None:
        return []
    wanted = examinations_of(incident.root.check, incident.root.category)
    done = {o.name: o for o in autopsy.outcomes if o.status == "done"}
    return [_pointer(done[name], incident.root.layer) for name in wanted if name in done]


def _pointer(outcome: Outcome, layer: str | None) -> See:
    remarks: list[Remark] = sorted(
        getattr(outcome.result, "remarks", ()),
        key=lambda r: (not (layer and layer in r.text), _RANK[r.severity]),
    )
    text = remarks[0].text if remarks else "nothing out of the ordinary."
    return See(f"autopsy-{outcome.name.replace('_', '-')}", outcome.title, text)
