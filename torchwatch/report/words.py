"""Sentences of the report that do not depend on a run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torchwatch.results import Autopsy

NOT_EXAMINED: tuple[tuple[str, str], ...] = (
    ("predictions", "whether the model predicts one value for everything, and how far off it is and where"),
    ("baselines", "whether it beats the mean, the median or the majority class at all"),
    ("gradient flow", "how much of the loss's gradient reaches each layer of the trained model"),
    (
        "activations",
        "which units stay silent or saturate over a whole data set, and which layers repeat one another",
    ),
    ("attributions", "which inputs the predictions depend on, and whether that map depends on the model"),
    ("layer attributions", "which places in the input excite which layer"),
    ("ablation", "how much worse the metric gets without each channel, time window, feature or module"),
    ("agreement", "whether ablation and attribution name the same inputs as important"),
    ("failures", "the samples with the largest errors and what they have in common"),
    ("groups", "whether one subject, site or class does much worse than the rest"),
    ("uncertainty", "how sure the model is where it is wrong"),
    ("frequency bands", "which frequencies of a signal the model uses"),
    ("topography", "where on a sensor layout the important channels lie"),
    ("attention", "what each attention head looks at, and which heads do nothing"),
    (
        "data quality",
        "leakage between splits, duplicates, shifted or missing labels, flat channels, outliers",
    ),
    ("relearning", "whether training on, starting anew or another learner gets more from these data"),
    (
        "verdict",
        "whether training, architecture, data or the task itself is the limit, with the evidence for each",
    ),
)
"""Examinations that need the model and data, and what each would tell."""

NEEDS_MODEL = (
    "These examinations need the model and data, and this report was made from the run file alone; they are "
    "listed so that their absence is not taken for a clean bill."
)


def not_examined(autopsy: Autopsy | None) -> list[tuple[str, str]]:
    """The examinations that were not asked for, and what each would tell."""
    asked = set() if autopsy is None else {o.name for o in autopsy.outcomes}
    return [(name, tells) for name, tells in NOT_EXAMINED if name.replace(" ", "_") not in asked]


def how_to_examine(path: Path, recipe: str | None) -> str:
    """The command that examines the model; a recipe of the run's is shown, never run unasked."""
    run = shlex.quote(str(path))
    if recipe:
        return (
            f"The run remembers the recipe {recipe} to rebuild its model and data; a run file from elsewhere "
            "must not run code, so look at it first. Then "
            f"`torchwatch postmortem {run} --use-recipe --checkpoint best.pt` examines the model."
        )
    return (
        f"`torchwatch postmortem {run} --build train.py:build --checkpoint best.pt` examines the model; "
        "`build` is a function of yours that returns `AutopsyInputs(model, data)`; a run remembers it with "
        '`Watcher(model, recipe="train.py:build")`.'
    )
