"""Sentences of the report that do not depend on a run."""

from __future__ import annotations

NOT_EXAMINED: tuple[tuple[str, str], ...] = (
    ("predictions", "whether the model predicts one value for everything, and how far off it is and where"),
    ("baselines", "whether it beats the mean, the median or the majority class at all"),
    ("gradient flow on data", "how much of the loss's gradient reaches each layer of the trained model"),
    (
        "activations on data",
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
    (
        "verdict",
        "whether training, architecture, data or the task itself is the limit, with the evidence for each",
    ),
)
"""Examinations that need the model and data, and what each would tell."""

NEEDS_MODEL = (
    "These examinations need the model and data. This version reads run files alone and has none of "
    "them; they are "
    "listed so that their absence is not taken for a clean bill."
)

GIVE_RECIPE = (
    "A run can already remember how to rebuild its model and data for the version that has them: "
    '`Watcher(model, recipe="train.py:build")`, where `build` is a function of yours.'
)


def has_recipe(recipe: str) -> str:
    """What is said when the run holds a recipe; it is only shown, never run."""
    return f"This run holds the recipe {recipe} to rebuild its model and data; it was not run for this."
