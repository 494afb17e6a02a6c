"""What the run's checks say about the four hypotheses: the roots of its incidents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torchwatch.results.verdict import Evidence, Name

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis

_WEIGHTS = {"critical": 1.5, "warning": 0.8, "info": 0.2}
_BY_CATEGORY: dict[str, Name] = {
    "wiring": "training",
    "gradients": "training",
    "activations": "training",
    "architecture": "architecture",
}
_BY_CHECK: dict[str, Name] = {
    "batch-too-large": "training",
    "batch-too-small": "training",
    "class-ignored": "data",
    "forgetting": "data",
    "input-nonfinite": "data",
    "input-scale": "data",
    "loss-divergence": "training",
    "loss-explosion": "training",
    "loss-nonfinite": "training",
    "lr-too-high": "training",
    "lr-too-low": "training",
    "redundant-layers": "architecture",
    "repeated-batch": "data",
    "sparse-weights": "architecture",
    "train-val-leakage": "data",
    "undivided-accumulation": "training",
    "unused-parameters": "architecture",
}
"""Checks that point elsewhere than their category.

Bare symptoms (a plateau) point nowhere, and neither does overfitting: the checkpoint may be older, and
relearning compares the errors themselves.
"""


def evidence(diagnosis: Diagnosis) -> Iterator[Evidence]:
    """The root of each incident, once per check."""
    seen: set[str] = set()
    for incident in diagnosis.incidents:
        root = incident.root
        name = _BY_CHECK.get(root.check) or _BY_CATEGORY.get(root.category)
        if name is None or root.check in seen:
            continue
        seen.add(root.check)
        says = f"{root.check} (step {root.since_step}): {root.title}"
        yield Evidence(name, _WEIGHTS.get(root.severity, 0.0), says, "run")
