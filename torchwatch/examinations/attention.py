"""Attention: where each head looks, whether streams look at one another, and what silencing a head does.

Weights of every attention of a pass, recomputed where a kernel hides them (see ``_attention_calls``), as
entropy over the logarithm of the number of valid keys, largest weight, sparsity, the pairs with most weight;
for pairs of streams a→b, b→a their alignment; correct samples against incorrect ones with an effect size and
a permutation test; classes. Patterns are descriptions: attention is not explanation (Jain & Wallace 2019), so
a head's contribution is measured by silencing it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._attention_collect import Collected, collect
from torchwatch.examinations._attention_heads import RELATIVE, TOTAL_VARIATION, contributions
from torchwatch.examinations._attention_numbers import Tally, nanmean, pattern
from torchwatch.examinations._attention_pairs import agreement
from torchwatch.examinations._attention_remarks import remarks_of
from torchwatch.examinations._attention_samples import samples_of
from torchwatch.examinations._attention_sides import by_class, contrasted, shown_maps
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination
from torchwatch.results.attention import Attention, AttentionLayer, AttentionPair, StreamPair

Floats = npt.NDArray[np.float64]


def examine(case: Case) -> Attention:
    """Look at every attention of the model."""
    return examined(case, collect(case, case.inputs.streams))


def examined(case: Case, found: Collected, *, silence: bool = True) -> Attention:
    """The result of what was collected.

    Args:
        case: model and samples.
        found: attention of all its samples.
        silence: measure contributions, one pass per head.
    """
    changes: Mapping[str, tuple[Floats, Floats]] = {}
    tried = 0
    if silence:
        changes, tried = contributions(case, list(found.tallies.values()))
    layers = tuple(
        _layer(t, found.directions.get(t.name, ""), changes.get(t.name)) for t in found.tallies.values()
    )
    pairs = tuple(
        _pair(p.a, p.b, p.forward, p.backward, a) for p, a in zip(found.pairs, found.alignment, strict=True)
    )
    samples = samples_of(case)
    contrast, sides = contrasted(case, layers, pairs, samples.correct)
    measure = TOTAL_VARIATION if case.task.classifies else RELATIVE
    result = Attention(
        layers=layers,
        pairs=pairs,
        samples=samples,
        contrast=contrast,
        contrasted=sides,
        classes=by_class(case, layers, pairs, samples.predicted),
        maps=shown_maps(layers, found.tallies),
        contribution_of=measure if tried else "",
        contribution_samples=tried,
        unread=found.unread,
        class_names=tuple(case.class_names),
    )
    return remarks_of(result, found.left_out)


def _layer(tally: Tally, stream: str, changes: tuple[Floats, Floats] | None) -> AttentionLayer:
    each = tally.each
    entropy, most, sparsity, mean, std, first = nanmean(each, 1)
    heads, queries, keys = tally.shape
    nothing = np.full(heads, np.nan)
    contribution, error_change = changes or (nothing, nothing)
    tops = tally.tops
    overall = nanmean(np.stack([entropy, most, sparsity]), 1)
    return AttentionLayer(
        name=tally.name,
        kind="cross" if tally.cross else "self",
        stream=stream,
        source=tally.source,
        queries=queries,
        keys=keys,
        entropy=entropy,
        most=most,
        sparsity=sparsity,
        mean=mean,
        std=std,
        first=first,
        patterns=tuple(pattern(*row) for row in zip(entropy, most, sparsity, strict=True)),
        pattern=pattern(*overall),
        contribution=contribution,
        error_change=error_change,
        sample_entropy=each[0],
        sample_most=each[1],
        top_query=tops[0].astype(np.int64),
        top_key=tops[1].astype(np.int64),
        top_weight=tops[2],
        pairs=tuple(AttentionPair(*p) for p in tally.pairs()),
        nan_samples=tally.nan,
    )


def _pair(a: str, b: str, forward: str, backward: str, aligned: Floats) -> StreamPair:
    finite = aligned[np.isfinite(aligned)]
    mean = float(finite.mean()) if finite.size else math.nan
    std = float(finite.std()) if finite.size else math.nan
    return StreamPair(a, b, forward, backward, aligned, mean, std, agreement(mean))


EXAMINATION = Examination(
    title="Attention",
    examine=examine,
    tells="what each attention head looks at, and which heads do nothing",
)
