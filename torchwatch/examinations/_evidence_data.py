"""What the quality of the data says about the four hypotheses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from torchwatch.results.data_quality import DataQuality, LabelShift
from torchwatch.results.verdict import Evidence

_HERE = "data_quality"
_COPIED = 0.01
_SHARED = 0.05
_SHIFTED = 0.25
_BAD = 0.001


def evidence(result: DataQuality) -> Iterator[Evidence]:
    """Evidence of one result."""
    yield from _of_alignment(result)
    yield from _of_leaks(result)
    yield from _of_labels(result)
    yield from _of_values(result)
    yield from _of_signal(result)


def _of_alignment(result: DataQuality) -> Iterator[Evidence]:
    shifted = [a for a in result.alignment if a.shifted]
    if not shifted:
        return
    found = max(shifted, key=lambda a: a.gain)
    where = "training samples" if found.split == "train" else "samples"
    says = (
        f"Inputs of the {where} fit the targets {abs(found.best)} "
        f"{'later' if found.best > 0 else 'earlier'} better than their own (correlation {found.gain:+.2f}): "
        "labels and inputs are out of step."
    )
    yield Evidence("data", 4.0, says, _HERE)
    yield Evidence("task ceiling", -2.0, says, _HERE)


def _of_leaks(result: DataQuality) -> Iterator[Evidence]:
    """Held-out samples that the model has seen: whatever it scores on them, it is not what it seems."""
    about = result.split("data")
    count = max(1, 0 if about is None else about.samples)
    seen = {
        "are copies of training samples": result.copies.across,
        "are almost copies of training samples": result.copies.near_across,
        "share a stretch with a training sample": None if result.overlap is None else result.overlap.across,
    }
    for what, number in seen.items():
        if number and number / count > _COPIED:
            weight = 4.0 if number / count > _SHARED else 2.0
            says = f"{number} of {count} held-out samples {what}: the score on them is too good."
            yield Evidence("data", weight, says, _HERE)
            return
    for overlap in result.group_overlaps:
        if overlap.share > _SHARED:
            says = (
                f"{overlap.share:.0%} of the held-out samples belong to a {overlap.column} that the training "
                "data have, too."
            )
            yield Evidence("data", 1.5 if overlap.given else 0.7, says, _HERE)
            return


def _of_labels(result: DataQuality) -> Iterator[Evidence]:
    labels = result.labels
    if labels is not None and labels.train_absent:
        says = f"Training data hold no sample of {', '.join(labels.train_absent[:3])}."
        yield Evidence("data", 1.5, says, _HERE)
    shift = result.label_shift
    if shift is not None and (size := _size_of(shift)) > _SHIFTED:
        yield Evidence("data", 1.0, f"The targets of the two splits differ (distance {size:.2f}).", _HERE)


def _size_of(shift: LabelShift) -> float:
    """The largest distance between the splits' targets beyond what chance gives, 0 to 1."""
    beyond = np.where(np.isfinite(shift.variation), shift.variation - shift.chance, shift.ks)
    finite = beyond[np.isfinite(beyond)]
    return float(finite.max()) if finite.size else 0.0


def _of_values(result: DataQuality) -> Iterator[Evidence]:
    bad = sum(s.nonfinite_targets for s in result.splits)
    samples = sum(s.samples for s in result.splits)
    if bad > _BAD * max(1, samples):
        yield Evidence("data", 2.0, f"{bad} targets are NaN or infinite.", _HERE)
    inputs = {(b.split, b.sample) for b in result.bad_values if b.where != "targets"}
    if inputs:
        yield Evidence("data", 1.0, f"At least {len(inputs)} samples hold NaN or infinite inputs.", _HERE)
    flat = 0 if result.channels is None else int(result.channels.flat.sum())
    if result.channels is not None and flat > len(result.channels.names) / 4:
        says = f"{flat} of {len(result.channels.names)} channels never change."
        yield Evidence("data", 0.7, says, _HERE)


def _of_signal(result: DataQuality) -> Iterator[Evidence]:
    """Whether a linear probe finds anything at all: a signal excuses the data a little."""
    skill = result.linear_skill
    if skill is None or skill.split != "train":
        return
    if skill.beats_chance and skill.low > 0:
        says = f"A linear probe finds a signal in the training data (skill {skill.skill:.2f})."
        yield Evidence("data", -0.5, says, _HERE)
