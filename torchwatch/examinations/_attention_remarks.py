"""What the examination of attention has to say, in sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from torchwatch.examinations._attention_numbers import nanmean
from torchwatch.results import Remark
from torchwatch.results.attention import Attention, AttentionLayer
from torchwatch.text import number, percent

CAVEAT = (
    "Attention is not explanation (Jain & Wallace 2019): other weights can give the same prediction. "
    "Patterns here describe the weights; what a head does to the output is told by silencing it."
)

_SINK = 0.5
_NOTHING = 1e-6
_SIGNIFICANT = 0.05


def remarks_of(result: Attention, left_out: int = 0) -> Attention:
    """The result with its remarks.

    Args:
        result: everything else.
        left_out: attentions that were not looked at.
    """
    said = [*_broken(result), *_streams(result), *_patterns(result), *_heads(result), *_sides(result)]
    if result.unread:
        said.append(
            Remark("info", f"{result.unread} calls have a shape that was not understood and are left out.")
        )
    if left_out:
        said.append(
            Remark("info", f"{left_out} attentions after the first {len(result.layers)} are left out.")
        )
    return replace(result, remarks=(*said, Remark("info", CAVEAT)))


def _broken(result: Attention) -> list[Remark]:
    broken = [layer for layer in result.layers if layer.nan_samples]
    if not broken:
        return []
    first = broken[0]
    text = (
        f"Attention is NaN in {first.nan_samples} of {result.samples.index.size} samples, first in "
        f"`{first.name}` ({len(broken)} of {len(result.layers)} attentions)."
    )
    fix = (
        "Check the inputs of these samples for NaN and infinity, then rows whose mask leaves no key, then "
        "the weights of the layers before it."
    )
    return [Remark("critical", text, fix)]


def _streams(result: Attention) -> list[Remark]:
    words = {
        "strong": "they agree strongly on what belongs together",
        "conflict": "each looks elsewhere than it is looked at from",
        "partial": "they agree in part",
        "unknown": "one of them is constant, so nothing can be compared",
    }
    return [
        Remark(
            "info",
            f"Alignment of {p.a}→{p.b} with {p.b}→{p.a}: {number(p.mean)} ± {number(p.std)} over samples; "
            f"{words[p.agreement]}.",
        )
        for p in result.pairs
    ]


def _patterns(result: Attention) -> list[Remark]:
    every = [p for layer in result.layers for p in layer.patterns]
    focused, diffuse = every.count("focused"), every.count("diffuse")
    text = (
        f"Of {len(every)} heads in {len(result.layers)} attentions {focused} are focused (largest weight "
        f"above 0.7) and {diffuse} diffuse (nearly uniform)."
    )
    said = [Remark("info", text)]
    # in a short row every key has a large part
    sinks = [layer for layer in result.layers if layer.keys >= 8 and _first(layer) > _SINK]
    if sinks:
        text = (
            f"In {len(sinks)} of {len(result.layers)} attentions, such as `{sinks[0].name}`, the first key "
            f"gets {percent(_first(sinks[0]))} of the weight: a place to look at when "
            "there is nothing to look for (an attention sink), which is common."
        )
        said.append(Remark("info", text))
    return said


def _first(layer: AttentionLayer) -> float:
    """Weight of the first key, mean over heads; 0 where nothing is known."""
    return float(np.nan_to_num(nanmean(layer.first, 0)))


def _heads(result: Attention) -> list[Remark]:
    rows = [
        (layer.name, head, value)
        for layer in result.layers
        for head, value in enumerate(layer.contribution)
        if np.isfinite(value)
    ]
    if not rows:
        return []
    name, head, value = max(rows, key=lambda row: row[2])
    text = (
        f"Silencing head {head} of `{name}` changes the output most: {number(value)} "
        f"({result.contribution_of}, {result.contribution_samples} samples)."
    )
    said = [Remark("info", text)]
    silent = [row for row in rows if row[2] <= _NOTHING]
    if silent:
        text = (
            f"{len(silent)} of {len(rows)} heads change nothing when they are silenced, such as head "
            f"{silent[0][1]} of `{silent[0][0]}`."
        )
        fix = "See whether their output projection is zero or their layer is cut off from the output."
        said.append(Remark("warning" if len(silent) == len(rows) else "info", text, fix))
    return said


def _sides(result: Attention) -> list[Remark]:
    found = [c for c in result.contrast if c.adjusted_p < _SIGNIFICANT]
    if not result.contrast:
        return []
    (left, _), (right, _) = result.contrasted
    if not found:
        least = min(c.adjusted_p for c in result.contrast)
        text = (
            f"Attention of {left} and {right} samples does not differ by more than chance would have it "
            f"(smallest corrected p {number(least)} of {len(result.contrast)} comparisons)."
        )
        if left != "correct":
            text = text.replace(f"{left} and {right} samples", f"samples with {left} and with {right}")
        return [Remark("info", text)]
    most = max(found, key=lambda c: abs(c.effect))
    who = f"{left} samples" if left == "correct" else f"samples with {left}"
    text = (
        f"{who[0].upper()}{who[1:]} have another {most.quantity} in `{most.what}`: {number(most.right)} "
        f"against {number(most.wrong)} (Cohen's d {number(most.effect)}, corrected p "
        f"{number(most.adjusted_p)}); {len(found)} of {len(result.contrast)} comparisons differ."
    )
    return [Remark("info", text)]
