"""What is wrong with the data: copies, leaks, shifts, broken values, labels that belong to other samples.

The model hardly matters here: it says what kind of task it is, and its predictions help to find targets that
are shifted against their inputs. Copies are found in whole sets, so up to 10,000 samples of each split are
looked at unless another number is asked for; where that is not all, neighbours in stretches of 100.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from torchwatch.examinations import _data_alignment, _data_copies, _data_labels, _data_values, tasks
from torchwatch.examinations._data_probe import LEAST, features
from torchwatch.examinations._data_reading import Floats, Split, about, read
from torchwatch.examinations._data_remarks import remarks
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination
from torchwatch.examinations.stand_in import StandIn
from torchwatch.results.data_quality import Alignment, DataQuality, LinearSkill, Order, Overlap

_PARTS = 8


def examine(case: Case) -> DataQuality:
    """Look at the data, and at the training data where there are any."""
    case.tick(0, _PARTS)
    data, train, notes = read(case)
    splits = [data] if train is None else [data, train]
    case.tick(1, _PARTS)
    bad, channels = _data_values.bad_values(splits), _data_values.channels(data, train)
    case.tick(2, _PARTS)
    copies = _data_copies.copies(data, train, case.rng("data_quality copies"))
    overlap = _data_copies.overlap(data, train)
    case.tick(3, _PARTS)
    labels = _data_labels.labels(data, train, case.class_names)
    names = labels.names if labels is not None else ()
    shift = _data_labels.shift(data, train, names, case.rng("data_quality shift"))
    cohorts = _data_labels.cohorts(data)
    case.tick(4, _PARTS)
    order = [_data_alignment.order(s, case.rng(f"data_quality order {s.name}")) for s in splits]
    lags, skill = _fit_of(case, splits, order, overlap)
    given = case.inputs.groups if isinstance(case.inputs.groups, str) else None
    found = DataQuality(
        task=case.task.name,
        splits=tuple(about(s) for s in splits),
        bad_values=bad,
        channels=channels,
        copies=copies,
        overlap=overlap,
        group_overlaps=_data_copies.group_overlaps(data, train, given),
        labels=labels,
        label_shift=shift,
        cohorts=cohorts,
        order=tuple(order),
        alignment=lags,
        linear_skill=skill,
        not_checked=tuple(_not_checked(data, train, notes)),
    )
    return dataclasses.replace(found, remarks=remarks(found))


def _fit_of(
    case: Case, splits: list[Split], order: list[Order], overlap: Overlap | None
) -> tuple[tuple[Alignment, ...], LinearSkill | None]:
    """Lags of each split, and what a linear model can tell; of the training data where they are given."""
    windows = 0.0 if overlap is None or not overlap.neighbours else overlap.overlapping / overlap.neighbours
    lags, skill = [], None
    for number, (split, near) in enumerate(zip(splits, order, strict=True)):
        if split.y is None or split.kind == "tokens" or len(split) < 2 * LEAST:
            continue
        found = features(split)
        told = _told(case, split, len(found.rows)) if split.name == "data" else None
        aligned = _data_alignment.alignment(split, found, told, near, windows)
        lags += [aligned] if aligned is not None else []
        case.tick(5 + number, _PARTS)
        skill = _data_alignment.linear_skill(split, found, case.rng("data_quality skill")) or skill
    return tuple(lags), skill


def _told(case: Case, split: Split, count: int) -> Floats | None:
    """The model's predictions for the first samples, in the columns of :func:`_data_labels.indicators`."""
    if isinstance(case.model, StandIn):
        return None
    if split.samples is case.samples:
        outputs = case.outputs[:count]
    else:
        outputs = case.predict({k: v[:count] for k, v in split.samples.inputs.items()})
    if case.task.classifies:
        outputs = tasks.probabilities(outputs, case.task)
    values = outputs.double().numpy()
    if split.kind != "classes":
        return np.asarray(values[:, :: -(-values.shape[1] // 16)])
    listed = _data_labels.listed_classes(split)
    if values.shape[1] == 1:
        values = np.concatenate([1 - values, values], 1)
    return np.asarray(values[:, listed]) if max(listed, default=0) < values.shape[1] else None


def _not_checked(data: Split, train: Split | None, notes: list[str]) -> list[str]:
    """What could not be looked at, and what would let it."""
    said = list(notes)
    for split in (data, train):
        if split is not None and not split.whole:
            of = f" of {split.samples.available:,}" if split.samples.available is not None else ""
            said.append(
                f"Of the {split.name} split, {len(split):,}{of} samples were looked at (see `--samples`)."
            )
    if data.y is None:
        said.append("Targets were not looked at: the data hold none.")
    elif len(data) < 2 * LEAST or data.kind == "tokens":
        reason = "targets are tokens" if data.kind == "tokens" else f"that needs {2 * LEAST} samples"
        said.append(f"Whether inputs and targets belong together was not tested: {reason}.")
    if not data.columns:
        said.append("Groups were not compared: there are no `groups` and no column such as `subject`.")
    elif train is not None and not set(data.columns) & set(train.columns):
        said.append(
            "Whether groups are in both splits is unknown: give `groups` as the name of a metadata column."
        )
    if data.x is None:
        said.append("Values per channel were not looked at: the input holds indices.")
    return said


EXAMINATION = Examination(
    title="Data quality",
    examine=examine,
    tells="whether the data are broken, copied, leaking between splits, shifted, or labelled one place off",
)
