"""Agreement: do ablation and attribution name the same parts of the input?

Ablation asks what the error needs, attribution what the output depends on; and attribution methods differ
among themselves. That they disagree is a fact to report, not a failure (Krishna et al. 2022, "The
Disagreement Problem in Explainable Machine Learning").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.agreement import Agreement, AxisAgreement
from torchwatch.results.attributions import Attributions, AxisProfile
from torchwatch.statistics.ranks import spearman, spearman_interval

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case
    from torchwatch.results.ablation import Ablation, AxisAblation

Floats = np.ndarray[Any, np.dtype[np.float64]]

_KINDS = ("element", "window")
_FEWEST = 3
_TOP, _MOST_TOP = 0.1, 5
"""The top of a ranking: a tenth of the elements, one to five of them."""
_AGREE, _PART = 0.6, 0.2


def examine(case: Case) -> Agreement:
    """Compare the results of ablation and attributions.

    Raises:
        NotApplicable: one of both is missing, or they have no axis in common.
    """
    ablation, attributions = case.results.get("ablation"), case.results.get("attributions")
    if ablation is None or attributions is None:
        missing = "ablation" if ablation is None else "attributions"
        raise NotApplicable(f"it compares ablation with attributions, and there are no {missing} here")
    return compared(ablation, attributions)


def compared(ablation: Ablation, attributions: Attributions) -> Agreement:
    """Ablation against attribution along each axis that both know.

    Raises:
        NotApplicable: there is none with three elements or more.
    """
    profiles = {p.axis: p for p in attributions.primary.profiles}
    axes = tuple(
        _along(part, profiles[part.axis])
        for part in ablation.parts
        if part.kind in _KINDS and part.axis in profiles and len(part.elements) >= _FEWEST
    )
    if not axes:
        raise NotApplicable("ablation and attributions share no axis with three elements or more")
    return Agreement(
        axes=axes,
        method=attributions.primary.title,
        methods=tuple(m.title for m in attributions.methods),
        between=_between(attributions),
        metric=ablation.metric,
        remarks=tuple(_remark(a, attributions.primary.title) for a in axes),
    )


def _along(part: AxisAblation, profile: AxisProfile) -> AxisAgreement:
    """One axis: elements one to one, or the profile summed over the ablated windows."""
    importance = profile.importance
    if part.windows is not None:
        importance = np.array([float(importance[start:end].sum()) for start, end in part.windows])
    elif len(part.elements) != len(importance):
        raise NotApplicable(
            f"ablation has {len(part.elements)} elements along {part.axis!r}, attributions {len(importance)}"
        )
    tested = int((np.isfinite(part.importance) & np.isfinite(importance)).sum())
    correlation = spearman(part.importance, importance)
    return AxisAgreement(
        axis=part.axis,
        kind=part.kind,
        elements=part.elements,
        ablation=part.importance,
        attribution=importance,
        correlation=correlation,
        interval=spearman_interval(correlation, tested),
        tested=tested,
        ablation_only=_only(part.elements, part.importance, importance),
        attribution_only=_only(part.elements, importance, part.importance),
    )


def _only(elements: tuple[str, ...], high: Floats, low: Floats) -> tuple[str, ...]:
    """Elements at the top of one ranking and in the lower half of the other."""
    both = np.nonzero(np.isfinite(high) & np.isfinite(low))[0]
    if both.size < _FEWEST or np.ptp(low[both]) == 0 or np.ptp(high[both]) == 0:
        return ()
    count = min(_MOST_TOP, max(1, round(_TOP * both.size)))
    top = both[np.argsort(-high[both], kind="stable")[:count]]
    middle = float(np.median(low[both]))
    return tuple(elements[i] for i in top if low[i] < middle)


def _between(attributions: Attributions) -> Floats:
    """Correlations of the methods' profiles with one another."""
    methods = attributions.methods
    table = np.full((len(methods), len(methods)), math.nan)
    for i, a in enumerate(methods):
        for j, b in enumerate(methods):
            each = np.array(
                [
                    spearman(p.importance, q.importance)
                    for p, q in zip(a.profiles, b.profiles, strict=True)
                    if len(p.elements) >= _FEWEST
                ]
            )
            finite = each[np.isfinite(each)]
            table[i, j] = float(finite.mean()) if finite.size else math.nan
    return table


def _remark(axis: AxisAgreement, method: str) -> Remark:
    what = f"windows along `{axis.axis}`" if axis.kind == "window" else f"elements along `{axis.axis}`"
    if not math.isfinite(axis.correlation):
        text = f"Ablation and {method} could not be compared over the {what}: all alike, or too few tested."
        return Remark("info", text)
    low, high = axis.interval
    text = (
        f"Ablation and {method} {_in_words(axis)} over {axis.tested} {what}: rank correlation "
        f"{axis.correlation:.2f} (95 % interval {low:.2f} to {high:.2f})."
    )
    if axis.ablation_only:
        text += (
            f" The error needs {', '.join(axis.ablation_only)}, which the output hardly depends on in the "
            "neighbourhood that attribution looks at: saturation, or a share with others."
        )
    if axis.attribution_only:
        text += (
            f" The output depends on {', '.join(axis.attribution_only)} without the error needing it: "
            "redundant with others, or noise that the model follows."
        )
    return Remark("info", text)


def _in_words(axis: AxisAgreement) -> str:
    low, high = axis.interval
    if axis.correlation >= _AGREE and low > 0:
        return "agree"
    if axis.correlation <= -_PART and high < 0:
        return "contradict each other"
    if axis.correlation >= _PART:
        return "agree in part" if low > 0 else "may agree or not"
    return "do not agree"


EXAMINATION = Examination(
    title="Agreement",
    examine=examine,
    tells="whether ablation and attribution name the same parts",
    after=("ablation", "attributions"),
)
