"""Tables of the page of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report.autopsy import _dots as dots
from torchwatch.report.document import Block, Fold, Table
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from torchwatch.results.attention import Attention, AttentionLayer, Floats

_SAMPLES = 20
_PAIRS = 5


def tables(result: Attention) -> list[Block]:
    """One per question; what there is nothing to say of is left out."""
    shown: list[Block] = [_layers(result)]
    if result.pairs:
        shown.append(_streams(result))
    if result.contrast:
        shown.append(_contrast(result))
    folded = [
        ("Pairs of query and key with most weight", _top(result)),
        ("Classes", _classes(result)),
        (f"The first {min(_SAMPLES, result.samples.index.size)} samples", _samples(result)),
    ]
    return [*shown, *(Fold(title, [table]) for title, table in folded if table.rows)]


def _layers(result: Attention) -> Table:
    head = [
        "attention", "kind", "heads", "queries × keys", "entropy", "max", "sparsity", "std", "focused",
        "diffuse", "pattern", "seen by",
    ]  # fmt: skip
    rows = [
        [
            layer.name, layer.stream or layer.kind, str(len(layer.entropy)),
            f"{layer.queries:,} × {layer.keys:,}",
            _mean(layer.entropy), _mean(layer.most), _share(layer.sparsity), _mean(layer.std),
            str(layer.patterns.count("focused")), str(layer.patterns.count("diffuse")), layer.pattern,
            layer.source.replace("_", " "),
        ]
        for layer in most_focused(result)
    ]  # fmt: skip
    return Table(head, rows, numeric=frozenset(range(2, 10)), names=frozenset({0}))


def most_focused(result: Attention) -> list[AttentionLayer]:
    """All, or the 40 with the lowest entropy, in the order of the pass."""
    if len(result.layers) <= dots.ROWS:
        return list(result.layers)
    entropy = np.nan_to_num([_finite_mean(layer.entropy) for layer in result.layers], nan=np.inf)
    return [result.layers[i] for i in np.sort(np.argsort(entropy, kind="stable")[: dots.ROWS])]


def _streams(result: Attention) -> Table:
    rows = [
        [f"{p.a} ↔ {p.b}", p.forward, p.backward, number(p.mean), number(p.std), p.agreement]
        for p in result.pairs
    ]
    head = ["streams", "a→b", "b→a", "alignment", "std", "agreement"]
    return Table(head, rows, numeric=frozenset({3, 4}), names=frozenset({1, 2}))


def _contrast(result: Attention) -> Table:
    (left, a), (right, b) = result.contrasted
    ordered = sorted(result.contrast, key=lambda c: (c.adjusted_p, -abs(np.nan_to_num(c.effect))))
    rows = [
        [
            c.what, c.quantity, number(c.right), number(c.wrong), number(c.effect), number(c.p),
            number(c.adjusted_p),
        ]
        for c in ordered[: dots.ROWS]
    ]  # fmt: skip
    head = ["attention", "quantity", f"{left} ({a})", f"{right} ({b})", "Cohen's d", "p", "corrected p"]
    return Table(head, rows, numeric=frozenset({2, 3, 4, 5, 6}), names=frozenset({0}))


def _top(result: Attention) -> Table:
    rows = [
        [layer.name, f"{p.query} → {p.key}", number(p.weight)]
        for layer in result.layers[: dots.ROWS]
        for p in layer.pairs[:_PAIRS]
    ]
    return Table(
        ["attention", "query → key", "mean weight"], rows, numeric=frozenset({2}), names=frozenset({0})
    )


def _classes(result: Attention) -> Table:
    head = ["class", "samples", "entropy", "max", *(f"{p.a} ↔ {p.b}" for p in result.pairs)]
    rows = [
        [c.name, f"{c.count:,}", _mean(c.entropy), _mean(c.most), *(_known(float(a)) for a in c.alignment)]
        for c in result.classes
    ]
    return Table(head, rows, numeric=frozenset(range(1, len(head))))


def _samples(result: Attention) -> Table:
    of, last = result.samples, result.layers[-1]
    head = ["sample", "predicted", "logit", "probability", "true", "right", "entropy", f"top of {last.name}"]
    head[7:7] = [f"{p.a} ↔ {p.b}" for p in result.pairs]
    rows = []
    for i in range(min(_SAMPLES, of.index.size)):
        right = of.correct[i]
        tops = zip(last.top_query[i], last.top_key[i], last.top_weight[i], strict=True)
        rows.append(
            [
                str(of.index[i]), _label(result, of.predicted[i]), _known(of.logit[i]),
                _known(of.probability[i]), _label(result, of.true[i]),
                "–" if np.isnan(right) else "yes" if right else "no", _mean(last.sample_entropy[i]),
                *(_known(float(p.alignment[i])) for p in result.pairs),
                ", ".join(f"{q} → {k} ({number(float(w))})" for q, k, w in tops if q >= 0),
            ]
        )  # fmt: skip
    return Table(head, rows, numeric=frozenset({2, 3, *range(6, len(head) - 1)}))


def _label(result: Attention, value: float) -> str:
    if np.isnan(value):
        return "–"
    return result.class_names[int(value)] if result.class_names else number(float(value))


def _known(value: float) -> str:
    return "–" if np.isnan(value) else number(float(value))


def _finite_mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _mean(values: Floats) -> str:
    return _known(_finite_mean(values))


def _share(values: Floats) -> str:
    mean = _finite_mean(values)
    return "–" if np.isnan(mean) else percent(mean)
