"""Data quality: what was looked at, the targets of both splits, the channels, and every lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from torchwatch.report.autopsy import Drawing
from torchwatch.report.autopsy import _data_plots as plots
from torchwatch.report.document import Block, Bullets, Fold, Plot, Table, Text, shortened
from torchwatch.text import number, percent

if TYPE_CHECKING:
    from torchwatch.results.data_quality import Channels, Cohorts, Copies, DataQuality, Labels, Overlap

_ROWS = 20
_NAMED = frozenset({0})


def blocks(result: DataQuality) -> list[Block]:
    """Facts, the pictures, tables, and what was not looked at."""
    found: list[Block] = [Bullets(list(_facts(result))), *(Plot(d.name) for d in DRAWINGS)]
    found += _of_labels(result)
    found += _of_channels(result.channels) if result.channels is not None else []
    found += _of_cohorts(result.cohorts) if result.cohorts is not None else []
    if result.bad_values:
        head = ["split", "where", "sample", "channel", "place", "value"]
        rows = [[b.split, b.where, str(b.sample), b.channel, b.place, b.value] for b in result.bad_values]
        found.append(Fold("NaN and infinite values, the first ones", [Table(head, rows, frozenset({2}))]))
    found += _of_pairs(result)
    if result.not_checked:
        found.append(Fold("What was not looked at", [Bullets([("", s) for s in result.not_checked])]))
    return found


def _facts(result: DataQuality) -> Iterator[tuple[str, str]]:
    for split in result.splits:
        of = f" of {split.available:,}" if split.available is not None else ""
        bad = f"{split.nonfinite_inputs:,} in the inputs, {split.nonfinite_targets:,} in the targets"
        name = "Training data" if split.name == "train" else "Data"
        yield name, f"{split.samples:,}{of} samples; NaN or infinite: {bad}"
    yield "Copies", _copies(result.copies)
    if result.overlap is not None:
        yield "Overlapping windows", _overlap(result.overlap)
    for group in result.group_overlaps:
        words = f"{group.count:,} in both splits, with {percent(group.share)} of the data's samples"
        yield f"Groups of {group.column}", words
    for near in result.order:
        if np.isfinite(near.targets) or np.isfinite(near.inputs):
            words = (
                f"targets {_signed(near.targets)}, inputs {_signed(near.inputs)} over {near.pairs:,} pairs"
            )
            yield f"Lag-1 autocorrelation ({near.split})", words
    skill = result.linear_skill
    if skill is not None:
        words = (
            f"skill {percent(skill.skill)} (95 % interval {percent(skill.low)} to {percent(skill.high)}), "
            f"correlation {skill.correlation:.2f}; permuted targets reach {skill.permuted:.2f} "
            f"(p = {skill.p:.2g})"
        )
        yield "Linear probe", words


def _signed(value: float) -> str:
    return f"{value:+.2f}" if np.isfinite(value) else "unknown"


def _copies(found: Copies) -> str:
    parts = [f"{found.within_data:,} within the data"]
    if found.within_train is not None:
        parts += [f"{found.within_train:,} within the training data", f"{found.across:,} in both"]
    if found.conflicting:
        parts.append(f"{found.conflicting:,} with another target than the original")
    if found.near_within_data is not None:
        across = "" if found.near_across is None else f", {found.near_across:,} near a training sample"
        parts.append(f"near copies: {found.near_within_data:,} within the data{across}")
    return "; ".join(parts)


def _overlap(found: Overlap) -> str:
    words = f"{found.overlapping:,} of {found.neighbours:,} neighbours"
    across = "" if found.across is None else f"; {found.across:,} share a stretch with a training window"
    return words + across


def _of_labels(result: DataQuality) -> list[Block]:
    """Classes with their shares, or numbers with their spread, and how far the splits are apart."""
    labels, shift = result.labels, result.label_shift
    if labels is None or not labels.names:
        return []
    order = np.arange(len(labels.names))
    if labels.kind != "numbers":
        order = np.argsort(-labels.count, kind="stable")
    rows = order[:_ROWS].tolist()
    table = _classes(labels, rows) if labels.kind != "numbers" else _numbers(labels, rows)
    found: list[Block] = [table]
    if len(rows) < len(labels.names):
        found.append(Text(f"{len(rows)} of {len(labels.names):,} are shown.", quiet=True))
    if shift is not None:
        head = ["target", "samples", "training", "KS", "p", "Wasserstein/σ", "total variation", "by chance"]
        cells = [
            [
                shortened(name),
                f"{shift.samples[i]:,}",
                f"{shift.train_samples[i]:,}",
                *(
                    _known(float(f[i]))
                    for f in (shift.ks, shift.p, shift.wasserstein, shift.variation, shift.chance)
                ),
            ]
            for i, name in enumerate(shift.names[:_ROWS])
        ]
        found.append(Table(head, cells, frozenset(range(1, 8)), _NAMED))
    return found


def _known(value: float) -> str:
    return number(value) if np.isfinite(value) else ""


def _classes(labels: Labels, rows: list[int]) -> Table:
    both = labels.train_count.size > 0
    head = ["class", "samples", "share", *(["training samples", "training share"] if both else [])]
    cells = [
        [
            shortened(labels.names[i]),
            f"{labels.count[i]:,}",
            percent(labels.share[i]),
            *([f"{labels.train_count[i]:,}", percent(labels.train_share[i])] if both else []),
        ]
        for i in rows
    ]
    return Table(head, cells, frozenset(range(1, 5)), _NAMED)


def _numbers(labels: Labels, rows: list[int]) -> Table:
    head = ["target", "samples", "mean", "std", "least", "median", "most", "commonest value"]
    cells = [
        [
            shortened(labels.names[i]),
            f"{labels.count[i]:,}",
            number(float(labels.mean[i])),
            number(float(labels.std[i])),
            *(number(float(labels.quantiles[i][q])) for q in (0, 50, 100)),
            percent(labels.commonest[i]),
        ]
        for i in rows
    ]
    return Table(head, cells, frozenset(range(1, 8)), _NAMED)


def _of_channels(found: Channels) -> list[Block]:
    rows = plots.worst_channels(found, _ROWS)
    head = [found.axis, "mean", "std", "least", "most", "flat in", "> 5σ", "furthest", "shift/σ", "KS"]
    cells = [
        [
            shortened(found.names[i]),
            *(number(float(f[i])) for f in (found.mean, found.std, found.least, found.most)),
            "all" if found.flat[i] else percent(found.flat_share[i]) if found.flat_share[i] > 0 else "",
            f"{found.outliers[i]:,}" if found.outliers[i] else "",
            f"{found.worst_z[i]:.1f}σ" if np.isfinite(found.worst_z[i]) else "",
            _known(float(found.shift[i])),
            _known(float(found.level_ks[i])),
        ]
        for i in rows.tolist()
    ]
    note = "" if len(rows) == len(found.names) else f" (the worst {len(rows)} of {len(found.names):,})"
    return [Fold(f"By {found.axis}{note}", [Table(head, cells, frozenset(range(1, 10)), _NAMED)])]


def _of_cohorts(found: Cohorts) -> list[Block]:
    order = np.argsort(-np.nan_to_num(found.target_ks + found.target_shift), kind="stable")[:_ROWS]
    head = [found.column, "samples", "target shift", "KS", "p", "input shift/σ", "in channel"]
    cells = [
        [
            shortened(found.names[i]),
            f"{found.samples[i]:,}{' (too few)' if found.few[i] else ''}",
            *(
                _known(float(f[i]))
                for f in (found.target_shift, found.target_ks, found.target_p, found.input_shift)
            ),
            found.input_channel[i],
        ]
        for i in order.tolist()
    ]
    words = (
        f"Groups explain {percent(found.explained)} of the targets' variance (ε²)."
        if found.explained > 0
        else ""
    )
    note = f" {len(order)} of {len(found.names):,} are shown." if len(order) < len(found.names) else ""
    table = Table(head, cells, frozenset(range(1, 6)), _NAMED)
    return [
        Fold(f"Groups of {found.column} beside all others", [Text((words + note).strip(), quiet=True), table])
    ]


def _of_pairs(result: DataQuality) -> list[Block]:
    pairs = [("copy", p) for p in result.copies.examples] + [("near", p) for p in result.copies.near_examples]
    if not pairs:
        return []
    rows = [[kind, f"{a} {i}", f"{b} {j}"] for kind, (a, i, b, j) in pairs]
    return [Fold("Pairs of copies, the first ones", [Table(["kind", "sample", "is like"], rows)])]


DRAWINGS = (
    Drawing("data_quality_targets", "Targets", plots.targets, plots.targets_caption),
    Drawing("data_quality_quantiles", "Quantiles of the targets", plots.quantiles, plots.quantiles_caption),
    Drawing("data_quality_channels", "Channels", plots.channels, plots.channels_caption),
    Drawing("data_quality_lags", "Inputs against shifted targets", plots.lags, plots.lags_caption),
)
