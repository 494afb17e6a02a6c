"""The configurations under which the zoos are watched; a new option of WatchConfig belongs in one of them."""

from __future__ import annotations

from dataclasses import replace

from torchwatch import WatchConfig

QUIET = WatchConfig(terminal=False, drain_s=60.0)
"""Nothing is shown; and on a busy machine the recorder has the time it needs, for that is not the subject."""

CONFIGS = {
    "default": QUIET,
    "everything": replace(
        QUIET,
        budget=None,
        gradients_every=1,
        activations_every=1,
        rare_every=1,
        attention=True,
        histograms=True,
    ),
    "sampled": replace(QUIET, dense_steps=0, activations_every=3, gradients_every=2, sentinel=True),
}

SHORT = {
    "default": replace(CONFIGS["default"], dense_steps=2, zoom_steps=0),
    "everything": CONFIGS["everything"],
}
"""For trainings of a few steps: the default configuration's dense steps end inside them, so that steps with
and without measuring follow one another whatever the alerts say."""

PROFILED = replace(SHORT["default"], profile_every=2, profile_steps=1)
"""Every second step under the profiler: too slow for the fast tests."""
