"""What data quality says of values: targets, channels, groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from torchwatch.results import Remark
from torchwatch.results.data_quality import Channels, Cohorts, Labels, LabelShift, SplitAbout

_FAR_OUT = 20.0
_NOTABLE = 8
"""Fewer values, none further out (in standard deviations), are not spoken of: chance gives some."""
_SHIFTED_KS, _SHIFTED_P = 0.15, 0.01
_SHIFTED_TV = 0.1
_SHIFTED_INPUT = 0.5
_COHORT_KS = 0.4
_MAJORITY = 0.95
_COMMONEST = 0.5
_TELLS_GROUP = 0.5
_EXPECTED = 10
"""So many samples of a class are expected before their absence counts."""
_SCALES = 1e3


def few(names: Sequence[object], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(n) for n in names[:most]) + more


def of_labels(found: Labels | None, sizes: dict[str, SplitAbout]) -> Iterator[Remark]:
    """Coverage, balance, constant targets."""
    if found is None:
        return
    data, train = sizes["data"], sizes.get("train")
    if found.kind == "numbers":
        yield from _of_numbers(found, data)
        return
    what = "classes" if found.kind == "classes" else "labels"
    if found.train_absent and train is not None:
        places = {n: i for i, n in enumerate(found.names)}
        sure = train.available == train.samples or any(
            found.share[places[n]] * train.samples >= _EXPECTED for n in found.train_absent
        )
        text = (
            f"{_some(found.train_absent, found.names, what)} in the data but in none of {train.samples:,} "
            f"training samples: {few(found.train_absent)}."
        )
        fix = "Split so that every class is trained on."
        yield Remark("critical" if sure else "warning", text, fix)
    if found.absent:
        some = _some(found.absent, found.names, what)
        text = f"{some} in none of {data.samples:,} samples: {few(found.absent)}."
        sure = data.available == data.samples
        yield Remark("warning" if sure else "info", text, "Nothing can be said of them; split by class.")
    if found.majority >= _MAJORITY:
        name = found.names[int(found.count.argmax())] if found.names else ""
        text = f"{found.majority:.1%} of the targets are of one class ({name}): accuracy says little here."
        yield Remark("warning", text, "Use balanced accuracy or F1, and weight the loss by class.")
    elif np.isfinite(found.imbalance) and found.names and found.imbalance >= 10:
        text = f"The commonest class has {found.imbalance:.0f} times as many samples as the rarest."
        yield Remark("info", text)


def _some(names: Sequence[str], of: Sequence[str], what: str) -> str:
    return f"{len(names)} of {len(of)} {what} {'is' if len(names) == 1 else 'are'}"


def _of_numbers(found: Labels, data: SplitAbout) -> Iterator[Remark]:
    for name, std, share in zip(found.names, found.std, found.commonest, strict=True):
        output = f"Output {name}" if len(found.names) > 1 else "The target"
        if std == 0:
            text = f"{output} has the same value in all {data.samples:,} samples."
            yield Remark("critical", text, "There is nothing to learn from it: check how targets are read.")
        elif share >= _COMMONEST:
            text = f"{output} has one and the same value in {share:.0%} of the samples."
            fix = "Check whether missing targets were filled in; else model that value apart."
            yield Remark("warning", text, fix)


def of_shift(found: LabelShift | None, labels: Labels | None) -> Iterator[Remark]:
    """Targets that differ between the splits."""
    if found is None or labels is None:
        return
    for i, name in enumerate(found.names):
        sizes = f"{int(found.samples[i]):,} against {int(found.train_samples[i]):,} values"
        output = "the targets" if len(found.names) == 1 else f"target {name}"
        if found.ks[i] >= _SHIFTED_KS and found.p[i] < _SHIFTED_P:
            text = (
                f"Training data and data differ in {output}: Kolmogorov–Smirnov {found.ks[i]:.2f}, "
                f"Wasserstein {found.wasserstein[i]:.2f} standard deviations (p = {found.p[i]:.1g}, {sizes})."
            )
            yield Remark("warning", text, "Find out what differs between the splits: time, site, selection.")
        if found.variation[i] >= _SHIFTED_TV and found.variation[i] > found.chance[i]:
            text = (
                f"Training data and data differ in {output}: total variation {found.variation[i]:.2f}, where "
                f"chance gives up to {found.chance[i]:.2f} ({sizes})."
            )
            yield Remark("warning", text, "Split by class, or correct predictions for the new shares.")


def of_channels(found: Channels | None, sizes: dict[str, SplitAbout]) -> Iterator[Remark]:
    """Flat channels, outliers, scales, channels that lie elsewhere than in training."""
    if found is None:
        return
    count = len(found.names)
    flat = [n for n, f in zip(found.names, found.flat, strict=True) if f]
    if flat:
        text = f"{len(flat)} of {count} {found.axis}s never change: {few(flat)}."
        yield Remark(
            "critical" if len(flat) == count else "warning",
            text,
            "Leave them out, or find out where their values got lost.",
        )
    partly = np.flatnonzero((found.flat_share >= 0.1) & ~found.flat)
    if partly.size:
        worst = partly[np.argsort(-found.flat_share[partly])]
        names = few([f"{found.names[i]} ({found.flat_share[i]:.0%})" for i in worst])
        text = (
            f"{partly.size} of {count} {found.axis}s do not change within a tenth or more of the samples: "
            f"{names}."
        )
        yield Remark("warning", text, "Look at these samples: a sensor may have been off.")
    yield from _of_outliers(found)
    moving = found.std[~found.flat & (found.std > 0)]
    if moving.size and moving.max() > _SCALES * moving.min():
        text = f"The scales of the {found.axis}s differ by a factor of {moving.max() / moving.min():.0f}."
        yield Remark("warning", text, "Standardise each by the training data's mean and standard deviation.")
    moved = np.flatnonzero(np.abs(found.shift) >= _SHIFTED_INPUT)
    if moved.size and "train" in sizes:
        worst = moved[np.argsort(-np.abs(found.shift[moved]))]
        names = few([f"{found.names[i]} ({found.shift[i]:+.1f})" for i in worst])
        text = (
            f"{moved.size} of {count} {found.axis}s lie elsewhere than in training, in standard "
            f"deviations: {names}."
        )
        yield Remark("warning", text, "Check that both splits are preprocessed alike.")


def _of_outliers(found: Channels) -> Iterator[Remark]:
    total = int(found.outliers.sum())
    if not total or (np.nanmax(found.worst_z) < _NOTABLE and total < _NOTABLE):
        return
    worst = int(np.nanargmax(found.worst_z))
    name = f" of {found.axis} {found.names[worst]}" if found.names[worst] else ""
    text = (
        f"{total:,} value{' lies' if total == 1 else 's lie'} more than 5 standard deviations from their "
        f"mean, the furthest {found.worst_z[worst]:.0f}{name} in sample {found.worst_sample[worst]}."
    )
    bad = found.worst_z[worst] >= _FAR_OUT
    yield Remark("warning" if bad else "info", text, "Look at this sample; clip or repair it." if bad else "")


def of_cohorts(found: Cohorts | None) -> Iterator[Remark]:
    """Groups that differ from the rest, or tell the target."""
    if found is None:
        return
    tests = max(1, int((~found.few).sum()))
    apart = np.flatnonzero((found.target_ks >= _COHORT_KS) & (found.target_p < _SHIFTED_P / tests))
    if apart.size:
        worst = apart[np.argsort(-found.target_ks[apart])]
        names = few([f"{found.names[i]} ({found.target_ks[i]:.2f}, n = {found.samples[i]})" for i in worst])
        text = (
            f"{apart.size} groups of {found.column!r} have other targets than the rest "
            f"(Kolmogorov–Smirnov): {names}."
        )
        yield Remark("info", text)
    if found.explained >= _TELLS_GROUP:
        text = (
            f"{found.column!r} alone explains {found.explained:.0%} of the targets' variance: a model can "
            "score well by recognising the group."
        )
        yield Remark("warning", text, f"Split by {found.column!r} and compare within groups.")
