"""What the examination of attention yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttentionPair:
    """A query and a key with much weight between them.

    Attributes:
        query: place of the query.
        key: place of the key.
        weight: mean over heads and samples.
    """

    query: int
    key: int
    weight: float


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One attention: all calls of the same place in the model. N samples, H heads.

    Rows (queries) with fewer than two valid keys and those of padding say nothing and are left out.

    Attributes:
        name: full name of the module in whose forward it was; ``#2`` … for further calls in the same forward.
        kind: ``self``, or ``cross`` where keys come from another sequence.
        stream: direction of a named pair such as ``audio→video``; empty for others.
        source: ``need_weights``, ``recomputed`` from queries and keys, ``softmax`` of scores in the model's
            own code, or ``returned`` by the module (dropout undone, mask unknown).
        queries: number of query places.
        keys: number of key places.
        entropy: of a row over the logarithm of its number of valid keys, 1 uniform, 0 one key; mean over rows
            and samples (H,).
        most: largest weight of a row, mean over rows and samples (H,).
        sparsity: share of a row's valid keys with less than a hundredth of a uniform weight, mean (H,).
        mean: of the weights over valid keys (H,).
        std: of the weights over valid keys (H,).
        first: weight of the first key, mean over rows (H,): an attention sink where it is large.
        patterns: ``focused``, ``diffuse``, ``mixed`` or ``unknown`` of each head.
        pattern: the same of the mean over heads.
        contribution: how much the output changes when the head's output is set to zero (H,), see
            :attr:`Attention.contribution_of`; NaN where it was not tried.
        error_change: how much the mean error changes by that (H,); positive: the head helps. NaN likewise.
        sample_entropy: entropy of each sample (N, H); NaN where no row counts.
        sample_most: largest weight of each sample's rows, mean (N, H).
        top_query: query of the largest weights of each sample, mean over heads (N, k); −1 for none.
        top_key: their keys (N, k).
        top_weight: their weights (N, k).
        pairs: the pairs with the largest mean weight over samples.
        nan_samples: samples with NaN among their weights.
    """

    name: str
    kind: str
    stream: str
    source: str
    queries: int
    keys: int
    entropy: Floats
    most: Floats
    sparsity: Floats
    mean: Floats
    std: Floats
    first: Floats
    patterns: tuple[str, ...]
    pattern: str
    contribution: Floats
    error_change: Floats
    sample_entropy: Floats
    sample_most: Floats
    top_query: Integers
    top_key: Integers
    top_weight: Floats
    pairs: tuple[AttentionPair, ...]
    nan_samples: int = 0


@dataclass(frozen=True, slots=True)
class AttentionSamples:
    """The samples whose attention was looked at.

    Attributes:
        index: place of each in the data (N,).
        predicted: predicted class, or the predicted value of a regression with one output (N,); else NaN.
        logit: of the predicted class, of a binary task the output towards it (N,); NaN where outputs are
            probabilities or no classes.
        probability: of the predicted class (N,); NaN where there are no classes.
        true: class or value (N,); NaN without targets.
        correct: 1 right, 0 wrong, NaN where that cannot be said (N,).
    """

    index: Integers
    predicted: Floats
    logit: Floats
    probability: Floats
    true: Floats
    correct: Floats


@dataclass(frozen=True, slots=True)
class StreamPair:
    """Two cross-attentions that look at one another.

    Attributes:
        a: name of one stream.
        b: name of the other.
        forward: the attention a→b (queries of a, keys of b).
        backward: the attention b→a.
        alignment: of each sample, Pearson correlation of a→b with the transpose of b→a, means over heads,
            over what both may attend to, in [−1, 1] (N,); NaN where one of them is constant.
        mean: of the alignment over samples.
        std: of the alignment over samples.
        agreement: ``strong`` (mean above 0.6), ``conflict`` (below 0.2), ``partial`` or ``unknown``.
    """

    a: str
    b: str
    forward: str
    backward: str
    alignment: Floats
    mean: float
    std: float
    agreement: str


@dataclass(frozen=True, slots=True)
class AttentionContrast:
    """A number compared between right and wrong samples.

    Attributes:
        what: the attention, or the stream pair.
        quantity: ``entropy``, ``max`` or ``alignment``.
        right: mean over correct samples (or those with the smaller errors).
        wrong: mean over the others.
        effect: Cohen's d, right minus wrong over the pooled standard deviation.
        p: of a two-sided permutation test of the difference of means.
        adjusted_p: corrected for the number of comparisons (Westfall & Young 1993).
    """

    what: str
    quantity: str
    right: float
    wrong: float
    effect: float
    p: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class ClassAttention:
    """Attention to samples of one class (the true one, the predicted one without targets).

    Attributes:
        name: of the class.
        count: samples.
        entropy: mean of each attention (A,), in the order of the layers.
        most: mean largest weight of each attention (A,).
        alignment: mean of each stream pair (P,).
    """

    name: str
    count: int
    entropy: Floats
    most: Floats
    alignment: Floats


@dataclass(frozen=True, slots=True)
class AttentionMap:
    """A head's weights, mean over samples, for a picture.

    Attributes:
        name: the attention.
        head: its number.
        why: why this head is shown.
        weights: mean weight per cell of at most 64 × 64 (rows are queries); NaN outside of the mask.
        query_width: neighbouring queries per cell.
        key_width: neighbouring keys per cell.
    """

    name: str
    head: int
    why: str
    weights: Floats
    query_width: int
    key_width: int


@dataclass(frozen=True, slots=True)
class Attention:
    """Where a model looks. Attention is not explanation (Jain & Wallace 2019).

    Attributes:
        layers: every attention in the order of the pass (A of them).
        pairs: named or recognised stream pairs.
        samples: what is known of each sample.
        contrast: correct against incorrect samples; of regressions and tokens, samples with errors below the
            median against the others.
        contrasted: names of the two sides and their sizes; empty where there is no contrast.
        classes: per class, at most 40, the largest first.
        maps: heads shown as pictures.
        contribution_of: what ``contribution`` is: ``total variation of the predicted probabilities``, or
            ``RMS change of the output over its standard deviation``; empty where none was tried.
        contribution_samples: how many samples it was measured on.
        unread: calls whose shape was not understood.
        class_names: names of the classes; empty for regression.
        remarks: what it has to say.
    """

    layers: tuple[AttentionLayer, ...]
    pairs: tuple[StreamPair, ...]
    samples: AttentionSamples
    contrast: tuple[AttentionContrast, ...]
    contrasted: tuple[tuple[str, int], ...]
    classes: tuple[ClassAttention, ...]
    maps: tuple[AttentionMap, ...]
    contribution_of: str = ""
    contribution_samples: int = 0
    unread: int = 0
    class_names: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
