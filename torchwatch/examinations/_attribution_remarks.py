"""What attributions have to say, in sentences."""

from __future__ import annotations

import dataclasses
import math

from torchwatch.results import Remark
from torchwatch.results.attributions import Attributions, AxisProfile, MethodAttribution
from torchwatch.text import percent

TOLERATED = 0.05
_NAMED = 5


def remarks_on(result: Attributions, left_out: int = 0) -> Attributions:
    """The result with its remarks.

    Args:
        result: without remarks.
        left_out: samples that could not be attributed.
    """
    said = [*_top(result), *_convergence(result), *_randomisation(result), *_constant(result)]
    if left_out:
        said.append(
            Remark(
                "warning",
                f"{left_out} samples hold NaN or infinity in their input or output and were left out.",
                "See data quality for where they are.",
            )
        )
    return dataclasses.replace(result, remarks=tuple(said))


def _top(result: Attributions) -> list[Remark]:
    """The elements that matter most along each axis."""
    said = []
    for profile in result.primary.profiles:
        total = float(profile.importance.sum())
        if len(profile.elements) < 2 or not total > 0:
            continue
        count = min(_NAMED, max(1, len(profile.elements) // 3))
        share = float(profile.importance[list(profile.ranking[:count])].sum()) / total
        names = ", ".join(place(profile, i, result.sample_rate) for i in profile.ranking[:count])
        said.append(
            Remark(
                "info",
                f"Along `{profile.axis}` {result.primary.title} puts {percent(share)} of the attribution on "
                f"{count} of {len(profile.elements)} elements: {names} (evenly spread it would be "
                f"{percent(count / len(profile.elements))}).",
            )
        )
    return said


def place(profile: AxisProfile, element: int, sample_rate: float | None) -> str:
    """Name of an element; on a time axis with a sample rate its time too."""
    name = profile.elements[element]
    if profile.axis != "time" or not sample_rate:
        return name
    return f"{name} ({element / sample_rate:.4g} s)"


def _convergence(result: Attributions) -> list[Remark]:
    found = result.primary.convergence
    if found is None or math.isnan(found.ratio):
        return []
    text = (
        f"{result.primary.title} add up to the change of the output from {result.baseline} with a delta of "
        f"{found.delta:.3g}, {percent(found.ratio)} of that change of {found.change:.3g}"
    )
    if found.ratio <= TOLERATED:
        return [Remark("info", f"{text}: the steps are fine enough.")]
    fix = f"Take more steps than {result.n_steps} (`ig_n_steps`), or a baseline nearer to the data."
    return [Remark("warning", f"{text}: over 5 %, so that the maps are not exact.", fix)]


def _randomisation(result: Attributions) -> list[Remark]:
    """Which maps depend on the model."""
    tested = [(m, m.randomisation) for m in result.methods if m.randomisation is not None]
    same = [(m, r) for m, r in tested if r.depends is False]
    if same:
        names = ", ".join(f"{m.title} ({r.correlation[-1]:.2f})" for m, r in same)
        fix = "Do not read these maps as what the model has learned: they show the input."
        text = f"The maps hardly change when all weights are drawn anew (rank correlation): {names}."
        return [Remark("warning", text, fix)]
    told = [(m, r) for m, r in tested if r.depends]
    if not told:
        return [] if not tested else [_cannot_tell(result)]
    highest = max(abs(float(r.correlation[-1])) for _, r in told)
    return [
        Remark(
            "info",
            "Every map depends on the model: with all weights drawn anew its rank correlation with the map "
            f"here is at most {highest:.2f}.",
        )
    ]


def _cannot_tell(result: Attributions) -> Remark:
    return Remark(
        "info",
        f"Whether the maps depend on the model could not be told: the input has too few elements "
        f"({' × '.join(str(len(p.elements)) for p in result.primary.profiles)}), or the maps are constant.",
    )


def _constant(result: Attributions) -> list[Remark]:
    """An output that does not depend on the input at all."""

    def silent(method: MethodAttribution) -> bool:
        # without an axis there is no profile, and nothing is known
        return bool(method.profiles) and not any(
            float(p.importance.max(initial=0.0)) > 0 for p in method.profiles
        )

    if not all(silent(m) for m in result.methods):
        return []
    return [
        Remark(
            "critical",
            f"All attributions are exactly 0: {result.explained} does not depend on the {result.place}.",
            "Look for a layer that gives a constant: dead units, a detached input, or weights of 0.",
        )
    ]
