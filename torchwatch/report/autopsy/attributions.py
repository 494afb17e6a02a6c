"""Attributions: profiles along each axis, the map, how methods compare, and whether they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing, _maps
from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Bullets, Fold, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwatch.report.style import Theme
    from torchwatch.results.attributions import Attributions, AxisProfile, MethodAttribution

_SAME = 0.7
_TOP = 3
_ROWS = 20


def blocks(result: Attributions) -> list[Block]:
    """What was explained, the pictures, the methods beside one another, what could not be run."""
    intro = (
        f"Explained is {result.explained}, from the {result.place}, on {result.samples:,} samples; the "
        f"baseline is {result.baseline}. Profiles are sums of |attribution| over the other axes, mean "
        "over the samples."
    )
    shown: list[Block] = [Text(intro), Plot("attributions_profiles"), Plot("attributions_map")]
    shown += [_methods(result), Plot("attributions_randomisation")]
    shown += [Fold(f"Ranking along {p.axis}", [_ranking(p, result)]) for p in result.primary.profiles]
    if result.outputs:
        shown.append(_outputs(result))
    if result.not_run:
        shown.append(Bullets([(title, why) for title, why in result.not_run]))
    return shown


def _methods(result: Attributions) -> Table:
    axes = [p for p in result.primary.profiles if len(p.elements) > 1]
    head = ["method", *(f"top of {p.axis}" for p in axes), "delta", "randomised", "depends on the model"]
    rows = [
        [
            m.title,
            *(", ".join(shortened(e, 30) for e in m.profile(p.axis).top(_TOP)) for p in axes),
            percent(m.convergence.ratio) if m.convergence and np.isfinite(m.convergence.ratio) else "–",
            number(float(m.randomisation.correlation[-1])) if m.randomisation else "–",
            _depends(m),
        ]
        for m in result.methods
    ]
    count = len(head)
    return Table(head, rows, numeric=frozenset({count - 3, count - 2}))


def _depends(method: MethodAttribution) -> str:
    if method.randomisation is None:
        return "not tested"
    return {True: "yes", False: "no", None: "cannot be told"}[method.randomisation.depends]


def _ranking(profile: AxisProfile, result: Attributions) -> Table:
    total = float(profile.importance.sum())
    rows = [
        [
            str(rank),
            shortened(profile.elements[i]),
            number(float(profile.importance[i])),
            number(float(profile.error[i])),
            percent(float(profile.importance[i]) / total) if total > 0 else "–",
        ]
        for rank, i in enumerate(profile.ranking[:_ROWS], 1)
    ]
    head = ["rank", profile.axis, f"|{result.primary.title}|", "standard error", "share"]
    return Table(head, rows, numeric=frozenset({0, 2, 3, 4}), names=frozenset({1}))


def _outputs(result: Attributions) -> Table:
    axes = [p.axis for p in result.primary.profiles if len(p.elements) > 1]
    rows = [
        [
            shortened(o.output),
            *(", ".join(p.top(_TOP)) for p in o.profiles if p.axis in axes),
            percent(o.convergence.ratio) if np.isfinite(o.convergence.ratio) else "–",
        ]
        for o in result.outputs
    ]
    return Table(
        ["output", *(f"top of {a}" for a in axes), "delta"], rows, numeric=frozenset({len(axes) + 1})
    )


# ---------------------------------------------------------------------- profiles


def _draw_profiles(result: Attributions, theme: Theme) -> Figure | None:
    """One panel per axis: rows for channels and features, curves for the rest."""
    profiles = [p for p in result.primary.profiles if len(p.elements) > 1]
    if not profiles:
        return None
    heights = [_height(p) for p in profiles]
    drawn = style.figure(sum(heights))
    grid = drawn.subplots(len(profiles), 1, height_ratios=heights, squeeze=False)
    for profile, axes in zip(profiles, grid[:, 0], strict=True):
        if profile.axis in _maps.UNORDERED:
            _rows(axes, profile, theme)
            axes.set_xlabel(f"sum of |attribution|, {result.primary.title}")
            axes.set_ylabel(style.label(profile.axis))
        else:
            _curves(axes, profile, result, theme)
    return drawn


def _height(profile: AxisProfile) -> float:
    if profile.axis in _maps.UNORDERED:
        return dots.height(min(len(profile.elements), dots.ROWS))
    return 3.0


def _rows(axes: Axes, profile: AxisProfile, theme: Theme) -> None:
    chosen = np.array(profile.ranking[: dots.ROWS])
    value, error = profile.importance[chosen], profile.error[chosen]
    names = [profile.elements[i] for i in chosen]
    dots.draw_dots(axes, names, value, value - error, value + error, theme)
    axes.set_xlim(left=0 if value.max() > 0 else None)
    evenly = float(profile.importance.mean())
    dots.reference(axes, evenly, "evenly spread", theme)


def _curves(axes: Axes, profile: AxisProfile, result: Attributions, theme: Theme) -> None:
    """All methods as shares of their own sum, the first one with its error."""
    for method, colour in zip(result.methods, theme.series, strict=False):
        own = method.profile(profile.axis)
        total = float(own.importance.sum()) or 1.0
        share = type(own)(own.axis, own.elements, own.importance / total, own.error / total, own.ranking)
        if method is result.primary:
            _maps.curve(axes, share, theme, rate=result.sample_rate, colour=colour, words=method.title)
        else:
            x = np.arange(len(share.importance)) / (
                result.sample_rate if result.sample_rate and profile.axis == "time" else 1.0
            )
            axes.plot(x, share.importance, color=colour, lw=0.8, alpha=0.8, label=method.title)
    axes.set_ylabel("share of |attribution|")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=6)


def _caption_of_profiles(result: Attributions) -> str:
    words = (
        f"Rows: {result.primary.title} with its standard error over the samples. Curves: every method as a "
        "share of its own sum; shaded is the standard error of the first."
    )
    for profile in result.primary.profiles:
        shown, total = min(dots.ROWS, len(profile.elements)), len(profile.elements)
        if profile.axis in _maps.UNORDERED and shown < total:
            words += f" The {shown} most important of {total:,} along {profile.axis} are shown."
    return words


# ---------------------------------------------------------------------- map


def _draw_map(result: Attributions, theme: Theme) -> Figure | None:
    """The signed map above, the magnitudes below; images side by side."""
    seen = result.overview
    if seen is None:
        return None
    image = {seen.rows, seen.columns} == {"height", "width"}
    height = 4.2 if image else 2 * min(4.5, max(2.4, 1.2 + 0.11 * len(seen.row_edges)))
    drawn = style.figure(height)
    grid = drawn.subplots(*((1, 2) if image else (2, 1)), squeeze=False)
    names = {p.axis: p.elements for p in result.primary.profiles}
    for axes, signed in zip(grid.flat, (True, False), strict=True):
        words = "mean attribution" if signed else "mean |attribution|"
        _maps.overview(
            drawn, axes, seen, theme, signed=signed, words=words, rate=result.sample_rate, names=names
        )
    return drawn


def _caption_of_map(result: Attributions) -> str:
    words = (
        f"{result.primary.title}, mean over {result.samples:,} samples. Red speaks for a higher output, "
        "blue for a lower one; where samples differ in sign only the second map shows it."
    )
    seen = result.overview
    others = [a for a in result.axes if seen is not None and a not in (seen.rows, seen.columns)]
    return f"{words} Summed over {', '.join(others)}." if others else words


# ---------------------------------------------------------------------- randomisation


def _draw_randomisation(result: Attributions, theme: Theme) -> Figure | None:
    """Correlation with the maps of copies whose layers are randomised one after the other."""
    tested = [
        (m, m.randomisation)
        for m in result.methods
        if m.randomisation is not None and np.isfinite(m.randomisation.correlation).any()
    ]
    if not tested:
        return None
    drawn = style.figure(3.2)
    left, right = drawn.subplots(1, 2, sharey=True)
    stages = ("trained", *tested[0][1].stages)
    x = np.arange(len(stages))
    marks = "osD^vP"
    for (method, found), colour, mark in zip(tested, theme.series, marks, strict=False):
        for axes, values in ((left, found.correlation), (right, found.magnitude)):
            axes.plot(x, [1.0, *values], color=colour, marker=mark, ms=4, lw=1.2, label=method.title)
    for axes, words in ((left, "signed map"), (right, "|map|")):
        axes.axhline(0, color=theme.ink, lw=0.8)
        axes.set_xticks(x, [style.label(s, 26) for s in stages])
        axes.set_xlabel("randomised")
        axes.set_title(words)
        axes.set_ylim(-0.55, 1.05)
    left.axhspan(_SAME, 1.05, color=theme.warning, alpha=0.12, lw=0)
    left.set_ylabel("rank correlation with the map of the trained model")
    left.yaxis.label.set_size(8)
    right.legend(loc="lower left", ncols=2)
    return drawn


def _caption_of_randomisation(_: Attributions) -> str:
    return (
        "Weights are drawn anew from the output to the input. Where the signed map stays in the shaded "
        "range with all layers randomised, it shows the input and not the model. Methods that multiply by "
        "the input keep part of |map| whatever the weights are."
    )


DRAWINGS = (
    Drawing("attributions_profiles", "Attribution along each axis", _draw_profiles, _caption_of_profiles),
    Drawing("attributions_map", "Map of the attribution", _draw_map, _caption_of_map),
    Drawing(
        "attributions_randomisation",
        "Does the map depend on the model?",
        _draw_randomisation,
        _caption_of_randomisation,
    ),
)
