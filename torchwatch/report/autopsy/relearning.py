"""The page of the relearning attempts: skill of each learner beside the patient's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.document import Block, Plot, Table, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwatch.results.relearning import Attempt, Relearning

_HEAD = ["learner", "skill", "95 % interval", "ahead of the model", "error", "on its own samples", "steps"]


def blocks(result: Relearning) -> list[Block]:
    """What was tried, a picture, and the figures."""
    said = (
        f"Each learner saw {result.trained_on:,} training samples and was judged on the same "
        f"{result.tested_on:,} held-out ones by {result.metric}. Skill 0 is what the best constant answer "
        f"reaches (error {result.naive_error:.4g}), 1 is perfect."
    )
    table = Table(_HEAD, list(map(_row, result.attempts)), numeric=frozenset({1, 3, 4, 5, 6}))
    found: list[Block] = [Text(said), Plot("relearning_skill"), table]
    if not math.isnan(result.memorised):
        text = (
            f"A copy with fresh weights learned {result.memorised_samples} samples by heart: "
            f"{max(0.0, result.memorised):.0%} of their error went away."
        )
        found.append(Text(text, quiet=True))
    return found


def _row(attempt: Attempt) -> list[str]:
    low, high = attempt.skill_interval
    gain = "–" if attempt.name == "patient" else f"{attempt.gain:+.3f}{' *' * attempt.better}"
    return [
        attempt.what,
        f"{attempt.skill:.3f}",
        f"{low:.3f} to {high:.3f}",
        gain,
        f"{attempt.error:.4g}",
        f"{attempt.train_error:.4g}",
        f"{attempt.steps:,}" if attempt.steps else "–",
    ]


def _draw(result: Relearning, theme: style.Theme) -> Figure | None:
    """One line per learner, the patient on top; the interval as a bar."""
    attempts = result.attempts[::-1]
    drawn = style.figure(1.2 + 0.5 * len(attempts))
    axes = drawn.add_subplot()
    places = np.arange(len(attempts))
    skills = np.array([a.skill for a in attempts])
    spread = np.abs(np.array([a.skill_interval for a in attempts]).T - skills)
    axes.axvline(0.0, color=theme.muted, linewidth=1.0, linestyle="--")
    for place, attempt in enumerate(attempts):
        patient = attempt.name == "patient"
        colour = theme.series[0] if patient else theme.warning if attempt.better else theme.muted
        width = spread[:, place : place + 1]
        axes.errorbar(skills[place], place, xerr=width, fmt="o", color=colour, capsize=3, linewidth=1.6)
    axes.set_yticks(places, [style.label(a.what, 70) for a in attempts])
    axes.set_xlabel("skill on held-out samples (1 − error / error of the best constant answer)")
    axes.set_xlim(max(-1.0, min(-0.05, float((skills - spread[0]).min()) - 0.05)), 1.02)
    axes.set_ylim(-0.6, len(attempts) - 0.4)
    return drawn


def _caption(result: Relearning) -> str:
    better = sum(a.better for a in result.attempts)
    return (
        "Points: skill; bars: 95 % interval over held-out samples. The model first. "
        f"{better} learner{'s are' if better != 1 else ' is'} clearly better than it, by differences paired "
        "by sample, and drawn in the colour of a warning."
    )


DRAWINGS = (Drawing("relearning_skill", "Can more be learned?", _draw, _caption),)
