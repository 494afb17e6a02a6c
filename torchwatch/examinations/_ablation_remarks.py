"""What an ablation has to say in sentences.

A sentence is about one of many elements, the one that stands out most; so it is said only where the element's
importance would still be there if it were judged with all others of its part (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from torchwatch.examinations._ablation_intervals import t_quantile
from torchwatch.results import Remark
from torchwatch.results.ablation import AxisAblation

_LEVEL = 0.05
_NAMED = 3
_HARM = 0.02
"""An element does harm if the error falls by more than this share without it."""
_CLOSE = 0.9
_WORDS = {
    "permutation": "permuted",
    "mean": "replaced by its mean",
    "noise": "replaced by noise",
    "zero": "set to 0",
}


def remarks_of(
    parts: Sequence[AxisAblation], baseline: float, metric: str, samples: int, *, out_of_time: bool
) -> tuple[Remark, ...]:
    """The remarks on all parts.

    Args:
        parts: what came out.
        baseline: mean error with nothing ablated.
        metric: name of the error.
        samples: how many there were.
        out_of_time: whether the time limit ended it.
    """
    remarks = [r for p in parts for r in _on_part(p, baseline, metric, samples)]
    inputs = [p for p in parts if p.kind != "module" and len(p.elements) > 1]
    if inputs and not any(_clear(p, samples).any() for p in inputs):
        text = (
            f"No part of the input matters: without any one of {_listed(inputs)} the {metric} of "
            f"{baseline:.4g} changes by no more than chance on {samples} samples."
        )
        fix = (
            "If predictions are nearly constant, the model ignores its input; if they are good, its parts "
            "stand in for each other: ablate them together with channel_groups."
        )
        remarks.insert(0, Remark("warning", text, fix))
    if out_of_time:
        remarks.append(_unfinished(parts))
    return tuple(remarks)


def _on_part(part: AxisAblation, baseline: float, metric: str, samples: int) -> Iterator[Remark]:
    clear = _clear(part, samples)
    best = [i for i in part.ranking if clear[i] and part.importance[i] > 0][:_NAMED]
    if best:
        top = best[0]
        low, high = part.interval[top]
        share = f", {part.importance[top] / baseline:+.0%}" if baseline > 0 else ""
        others = f"; next {', '.join(part.elements[i] for i in best[1:])}" if best[1:] else ""
        text = (
            f"{_noun(part)} `{part.elements[top]}` matters most: {_WORDS[part.fill]}, the {metric} changes "
            f"by {part.importance[top]:+.3g} (95 % interval {low:.3g} to {high:.3g}{share}){others}."
        )
        yield Remark("info", text)
    worst = [i for i in reversed(part.ranking) if clear[i] and part.importance[i] < -_HARM * abs(baseline)]
    if worst and part.fill == "permutation":
        yield _harmful(part, worst, metric)
    if part.kind == "module":
        yield from _idle(part, baseline, metric)


def _harmful(part: AxisAblation, worst: Sequence[int], metric: str) -> Remark:
    named = ", ".join(f"`{part.elements[i]}` ({part.importance[i]:+.3g})" for i in worst[:_NAMED])
    text = (
        f"The model does better without {len(worst)} of {len(part.elements)} along {part.axis}: the {metric} "
        f"falls when they are permuted, most for {named}."
    )
    fix = (
        "It learned something there that does not hold on these data: compare their distribution with that "
        "the training data, or leave them out."
    )
    return Remark("warning", text, fix)


def _idle(part: AxisAblation, baseline: float, metric: str) -> Iterator[Remark]:
    """Blocks whose whole output makes no difference."""
    tiny = 1e-6 * abs(baseline)
    still = [i for i in part.ranking if np.abs(part.interval[i]).max() <= tiny]
    if still:
        named = ", ".join(f"`{part.elements[i]}`" for i in still[:_NAMED])
        text = f"{len(still)} of {len(part.elements)} blocks make no difference to the {metric}: {named}."
        yield Remark("warning", text, "Look for dead units there, or for a path around them; they can go.")


def _unfinished(parts: Sequence[AxisAblation]) -> Remark:
    untested = sum(int((p.repeats == 0).sum()) for p in parts)
    total = sum(len(p.elements) for p in parts)
    text = (
        f"The time limit was over: {untested} of {total} elements were not tested and have no value."
        if untested
        else "The time limit was over before all draws: intervals are wider than they had to be."
    )
    return Remark("warning", text, "Raise --time-limit, or examine fewer --samples.")


def _clear(part: AxisAblation, samples: int) -> np.ndarray:
    """Which intervals would not cover 0 at a level shared among all tested elements (n,)."""
    tested = max(1, len(part.ranking))
    wider = t_quantile(_LEVEL / 2 / tested, samples - 1) / t_quantile(_LEVEL / 2, samples - 1)
    half = (part.interval[:, 1] - part.interval[:, 0]) / 2 * wider
    return np.asarray(np.abs(part.importance) > half)


def _noun(part: AxisAblation) -> str:
    return {
        "window": f"The window of {part.axis}",
        "patch": "The patch",
        "group": "The group",
        "module": "The block",
    }.get(part.kind, part.axis.capitalize())


def _listed(parts: Sequence[AxisAblation]) -> str:
    words = {"window": "windows", "patch": "patches", "group": "groups"}
    return " or ".join(f"{len(p.elements)} {words.get(p.kind, f'{p.axis}s')}" for p in parts)
