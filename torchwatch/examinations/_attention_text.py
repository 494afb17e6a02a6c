"""The report of captured attention in plain text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torchwatch.results.attention import Attention, AttentionLayer
from torchwatch.text import number, percent, printable

_LAYERS = 40
_SAMPLES = 10


def text_of(result: Attention) -> str:
    """Remarks, a line per attention and head, stream pairs, what differs, classes, the first samples."""
    parts = [
        "\n".join(f"- {r.text} {r.fix}".rstrip() for r in result.remarks),
        _layers(result),
        _pairs(result),
        _contrast(result),
        _classes(result),
        _samples(result),
    ]
    return "\n\n".join(printable_lines(p) for p in parts if p) + "\n"


def printable_lines(text: str) -> str:
    """Each line made printable: names come from the model."""
    return "\n".join(printable(line, 400) for line in text.split("\n"))


def _layers(result: Attention) -> str:
    shown = result.layers[:_LAYERS]
    head = ["attention", "head", "entropy", "max", "sparsity", "mean", "std", "contribution", "pattern"]
    rows = []
    for layer in shown:
        rows.append([_named(layer), "all", *_means(layer), layer.pattern])
        rows += [["", str(h), *_of_head(layer, h), layer.patterns[h]] for h in range(len(layer.entropy))]
    words = (
        "Entropy over log(valid keys), mean largest weight, share of keys below 1/100 of a uniform weight."
    )
    if len(result.layers) > _LAYERS:
        words += f" The first {_LAYERS} of {len(result.layers)} attentions are shown."
    return f"{words}\n{table(head, rows)}"


def _named(layer: AttentionLayer) -> str:
    stream = f", {layer.stream}" if layer.stream else ""
    return f"{layer.name} ({layer.kind}{stream}, {layer.queries} × {layer.keys}, {layer.source})"


def _means(layer: AttentionLayer) -> list[str]:
    return [
        *(number(float(v.mean())) for v in (layer.entropy, layer.most)),
        percent_of(float(layer.sparsity.mean())),
        *(number(float(v.mean())) for v in (layer.mean, layer.std)), "",
    ]  # fmt: skip


def _of_head(layer: AttentionLayer, head: int) -> list[str]:
    values = [float(v[head]) for v in (layer.entropy, layer.most, layer.sparsity, layer.mean, layer.std)]
    contribution = float(layer.contribution[head])
    return [
        number(values[0]), number(values[1]), percent_of(values[2]), number(values[3]), number(values[4]),
        number(contribution) if np.isfinite(contribution) else "–",
    ]  # fmt: skip


def percent_of(share: float) -> str:
    """A share, a dash where it is not known."""
    return percent(share) if np.isfinite(share) else "–"


def _pairs(result: Attention) -> str:
    if not result.pairs:
        return ""
    rows = [
        [f"{p.a} ↔ {p.b}", p.forward, p.backward, number(p.mean), number(p.std), p.agreement]
        for p in result.pairs
    ]
    return table(["streams", "a→b", "b→a", "alignment", "std", "agreement"], rows)


def _contrast(result: Attention) -> str:
    if not result.contrast:
        return ""
    (left, a), (right, b) = result.contrasted
    rows = [
        [c.what, c.quantity, number(c.right), number(c.wrong),
         number(c.effect), number(c.p), number(c.adjusted_p)]
        for c in sorted(result.contrast, key=lambda c: (c.adjusted_p, -abs(c.effect)))[:_LAYERS]
    ]  # fmt: skip
    head = ["attention", "quantity", f"{left} ({a})", f"{right} ({b})", "Cohen's d", "p", "corrected p"]
    return table(head, rows)


def _classes(result: Attention) -> str:
    if not result.classes:
        return ""
    rows = [
        [c.name, str(c.count), number(float(np.nanmean(c.entropy))) if np.isfinite(c.entropy).any() else "–",
         number(float(np.nanmean(c.most))) if np.isfinite(c.most).any() else "–"]
        for c in result.classes
    ]  # fmt: skip
    return table(["class", "samples", "entropy", "max"], rows)


def _samples(result: Attention) -> str:
    """The first samples with their largest weight in the last attention."""
    of, last = result.samples, result.layers[-1]
    rows = []
    for i in range(min(_SAMPLES, of.index.size)):
        right = of.correct[i]
        tops = [
            f"{q}→{k} ({number(float(w))})"
            for q, k, w in zip(last.top_query[i], last.top_key[i], last.top_weight[i], strict=True)
            if q >= 0
        ]
        aligned = [number(float(p.alignment[i])) for p in result.pairs]
        rows.append(
            [
                str(of.index[i]), _label(result, of.predicted[i]), _known(of.logit[i]),
                _known(of.probability[i]),
                _label(result, of.true[i]), "–" if np.isnan(right) else "yes" if right else "no",
                ", ".join(aligned) or "–",
                number(float(last.sample_entropy[i].mean())), ", ".join(tops),
            ]
        )  # fmt: skip
    head = [
        "sample", "predicted", "logit", "probability", "true", "right", "alignment", "entropy",
        f"query→key (weight) in {last.name}",
    ]  # fmt: skip
    return f"The first {len(rows)} of {of.index.size} samples.\n{table(head, rows)}"


def _label(result: Attention, value: float) -> str:
    if np.isnan(value):
        return "–"
    return result.class_names[int(value)] if result.class_names else number(float(value))


def _known(value: float) -> str:
    return "–" if np.isnan(value) else number(float(value))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width."""
    every = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in every
    )
