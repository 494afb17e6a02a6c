"""What data quality has to say: sentences with their numbers, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchwatch.examinations._data_remarks_values import few, of_channels, of_cohorts, of_labels, of_shift
from torchwatch.results import Remark
from torchwatch.results.data_quality import (
    Alignment,
    BadValue,
    Copies,
    DataQuality,
    GroupOverlap,
    Overlap,
    SplitAbout,
)

_LEAK = 0.01
_NEAR = 0.05


def remarks(found: DataQuality) -> tuple[Remark, ...]:
    """Everything that is to be said, the worst first."""
    sizes = {s.name: s for s in found.splits}
    said = [
        *_of_alignment(found.alignment),
        *_of_bad(found.splits, found.bad_values),
        *_of_copies(found.copies, sizes),
        *_of_overlap(found.overlap, sizes["data"]),
        *_of_groups(found.group_overlaps),
        *of_labels(found.labels, sizes),
        *of_shift(found.label_shift, found.labels),
        *of_channels(found.channels, sizes),
        *of_cohorts(found.cohorts),
        *_of_order(found),
        *_of_skill(found),
    ]
    rank = {"critical": 0, "warning": 1, "info": 2}
    return tuple(sorted(said, key=lambda r: rank[r.severity]))


def _of_alignment(found: Sequence[Alignment]) -> Iterator[Remark]:
    for one in found:
        at = list(one.lags).index(one.best)
        by_probe = not one.model[at] > one.probe[at]
        who, values = ("a linear probe", one.probe) if by_probe else ("the model", one.model)
        own = float(values[list(one.lags).index(0)])
        where = (
            f"{abs(one.best)} place{'s' if abs(one.best) > 1 else ''} "
            f"{'later' if one.best > 0 else 'earlier'}"
        )
        sentence = (
            f"Inputs of the {_named(one.split)} fit the targets {where} better than their own: {who} reaches "
            f"a correlation of {values[at]:.2f} there and {own:.2f} with their own"
        )
        if one.shifted:
            fix = "Pair them anew: look for an off-by-one slice, a dropped row or two files in another order."
            yield Remark(
                "critical", f"{sentence}, over {int(one.pairs[at]):,} samples: labels are misaligned.", fix
            )
        elif one.excused and one.gain >= 0.1:
            yield Remark("info", f"{sentence}. That need not be a fault: {one.excused}.")


def _of_bad(splits: Sequence[SplitAbout], bad: Sequence[BadValue]) -> Iterator[Remark]:
    for split in splits:
        for what, count in (("inputs", split.nonfinite_inputs), ("targets", split.nonfinite_targets)):
            if not count:
                continue
            mine = [b for b in bad if b.split == split.name and (b.where == "targets") == (what == "targets")]
            first = f", first in {_where(mine[0])}" if mine else ""
            text = (
                f"NaN or infinite: {count:,} of the values in the {what} of the {_named(split.name)}{first}."
            )
            yield Remark(
                "critical", text, "Repair or leave out these samples: one is enough to ruin all weights."
            )


def _where(bad: BadValue) -> str:
    parts = [f"sample {bad.sample}", f"channel {bad.channel}" if bad.channel else "", bad.place]
    return ", ".join(p for p in parts if p)


def _named(split: str) -> str:
    return "training data" if split == "train" else "data"


def _of_copies(found: Copies, sizes: dict[str, SplitAbout]) -> Iterator[Remark]:
    count = sizes["data"].samples
    if found.across:
        share = found.across / count
        text = f"{found.across:,} of {count:,} samples ({share:.1%}) are in the training data too."
        fix = "Split before augmenting or copying; what was trained on tells nothing about new data."
        yield Remark("critical" if share >= _LEAK else "warning", text, fix)
    if found.conflicting:
        text = f"{found.conflicting:,} copies of samples have other targets than their originals."
        yield Remark("warning", text, "Look at these pairs: one of the two labels is wrong.")
    for name, within in (("data", found.within_data), ("train", found.within_train)):
        if within:
            text = (
                f"{within:,} of {sizes[name].samples:,} samples of the {_named(name)} are copies of others."
            )
            many = within >= _LEAK * sizes[name].samples
            yield Remark("warning" if many else "info", text, "Leave copies out, or give them less weight.")
    near = [(found.near_across, "a training sample"), (found.near_within_data, "another one")]
    for number, other in near:
        if number:
            text = (
                f"{number:,} of {count:,} samples are nearly the same as {other} (they differ by less than "
                "5 %)."
            )
            leak = other != "another one" and number >= _NEAR * count
            yield Remark("warning" if leak else "info", text, "Look at a few of these pairs." if leak else "")


def _of_overlap(found: Overlap | None, data: SplitAbout) -> Iterator[Remark]:
    if found is None:
        return
    if found.across:
        share = found.across / data.samples
        text = (
            f"{found.across:,} of {data.samples:,} samples ({share:.1%}) share a stretch with a training "
            "window."
        )
        fix = (
            "Split recordings first and cut windows afterwards, or leave a gap of one window between the "
            "splits."
        )
        yield Remark("critical" if share >= _LEAK else "warning", text, fix)
    if found.overlapping:
        text = (
            f"{found.overlapping:,} of {found.neighbours:,} neighbouring windows overlap (one begins "
            f"{found.shift:g} of {found.length} bins after the other): there is less independent data than "
            "samples."
        )
        yield Remark("info", text)


def _of_groups(found: Sequence[GroupOverlap]) -> Iterator[Remark]:
    for one in found:
        text = (
            f"{one.count:,} groups of {one.column!r} are in both splits ({few(one.shared)}), with "
            f"{one.share:.0%} of the data's samples."
        )
        fix = f"Split by {one.column!r}, unless the model is only meant for groups that it has seen."
        yield Remark("critical" if one.given else "warning", text, fix)


def _of_order(found: DataQuality) -> Iterator[Remark]:
    for one in found.order:
        alike = [
            f"{what} {value:.2f}"
            for what, value in (("targets", one.targets), ("inputs", one.inputs))
            if value >= 0.3
        ]
        if alike:
            text = (
                f"Neighbours in the {_named(one.split)} are alike (correlation of {' and '.join(alike)} over "
                f"{one.pairs:,} pairs): intervals that take samples for independent are too narrow, and a "
                "random split leaks."
            )
            yield Remark("info", text)


def _of_skill(found: DataQuality) -> Iterator[Remark]:
    one = found.linear_skill
    if one is None:
        return
    told = (
        f"A linear probe of {one.features:,} features explains {one.skill:.1%} of the targets (95 % interval "
        f"{one.low:.1%} to {one.high:.1%}; {one.samples:,} samples of the {_named(one.split)}, held out in "
        "halves)"
    )
    against = f"correlation {one.correlation:.2f}, with permuted targets up to {one.permuted:.2f}"
    if one.beats_chance:
        yield Remark("info", f"{told}: there is a signal in the data ({against}).")
    else:
        yield Remark("info", f"{told}, no more than chance: no linear signal was found ({against}).")
