"""What a comparison of groups has to say, in sentences."""

from __future__ import annotations

import math

from torchwatch.results import Remark
from torchwatch.results.groups import Groups
from torchwatch.text import number, percent, printable

FEW = 5
"""Groups with fewer samples are shown and marked, and judge nothing."""

_SURE = 0.01
_WORSE_RMSE, _WORSE_ACCURACY = 1.25, 0.1
_OFFSET_SHARE = 0.25


def group_remarks(result: Groups, residual_p: float) -> tuple[Remark, ...]:
    """All that a comparison has to say.

    Args:
        result: the comparison.
        residual_p: p of the residuals' split; NaN for classes.
    """
    return (*_worst(result), *_offsets(result, residual_p), *_only_groups(result), *_few(result))


def _worst(result: Groups) -> tuple[Remark, ...]:
    """The worst group where it is worse than chance and clearly so; a spread beyond chance otherwise."""
    if result.worst is None or not math.isfinite(result.worst_p):
        return ()
    value = float(result.value[result.names.index(result.worst)])
    if result.higher_is_better:
        clearly = value < result.overall - _WORSE_ACCURACY
    else:
        clearly = value > result.overall * _WORSE_RMSE
    name = printable(result.worst, 60)
    what = f"{result.metric} {number(value)} against {number(result.overall)} overall"
    if clearly and result.worst_p < _SURE:
        text = (
            f"The model fails on the {result.by} {name}: {what}; of groups drawn by chance the worst is as "
            f"bad with p = {number(result.worst_p)}."
        )
        fix = "Compare its inputs and labels with the others (data quality), and give it more training data."
        return (Remark("warning", text, fix),)
    if result.spread_p < _SURE:
        text = (
            f"The {result.metric} differs between groups by more than chance (standard deviation "
            f"{number(result.spread)}, p = {number(result.spread_p)}); worst is {name}, {what}."
        )
        return (Remark("info", text),)
    return ()


def _offsets(result: Groups, p: float) -> tuple[Remark, ...]:
    split = result.split("residuals")
    if split is None or not split.share > _OFFSET_SHARE or not p < _SURE:
        return ()
    text = (
        f"{percent(split.share)} of the residuals' variance lies between groups: much of the error is an "
        "offset that each group has of its own."
    )
    fix = "Normalise inputs or targets per group, or calibrate a new group with a few labelled samples."
    return (Remark("warning", text, fix),)


def _only_groups(result: Groups) -> tuple[Remark, ...]:
    """Predictions that follow the groups' means and nothing inside them."""
    constant = not math.isfinite(result.pearson_within)
    nothing = constant or result.within_low <= 0 <= result.within_high
    if not (result.pearson_between > 0.5 and nothing) or (~result.few).sum() < FEW:
        return ()
    inside = (
        "they do not vary"
        if constant
        else (
            f"{number(result.pearson_within)} (95 % {number(result.within_low)} … "
            f"{number(result.within_high)})"
        )
    )
    text = (
        "Predictions follow the groups and not what happens inside them: "
        f"r = {number(result.pearson_between)} between the groups' means, but {inside} within groups."
    )
    fix = (
        "The model may only recognise groups: split training and validation by group, and predict "
        "deviations from each group's mean."
    )
    return (Remark("warning", text, fix),)


def _few(result: Groups) -> tuple[Remark, ...]:
    count = int(result.few.sum())
    if not count:
        return ()
    text = f"{count:,} of {len(result.names):,} groups have fewer than {FEW} samples"
    if count == len(result.names):
        return (Remark("warning", f"{text}: nothing can be said about them.", "Raise `samples`."),)
    return (Remark("info", f"{text}; they count neither for the spread nor as the worst."),)
