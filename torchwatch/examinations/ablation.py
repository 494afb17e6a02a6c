"""Ablation: how much worse the model gets without each channel, feature, window, patch, group and block.

An element is filled with the values of other samples (permutation importance, Breiman, "Random Forests",
Machine Learning 45, 2001), with its mean, with noise or with zero; its importance is the change of the
task's error: mean squared error or negative log-likelihood. Only a permutation leaves the distribution of
the element as it is, so that the expected importance of what says nothing about the target is exactly 0;
mean and zero also measure how the model takes inputs that it never saw.

Every element gets its first draw before any gets its second: when the time is over, there are fewer draws
rather than fewer elements. Intervals take samples as independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from torchwatch.examinations._ablation_elements import Element, Part
from torchwatch.examinations._ablation_inputs import InputAblation, axis_ablation
from torchwatch.examinations._ablation_intervals import paired
from torchwatch.examinations._ablation_modules import blocks, errors_without
from torchwatch.examinations._ablation_remarks import remarks_of
from torchwatch.examinations.case import Case, OutOfTime
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results.ablation import Ablation, AxisAblation


def examine(case: Case) -> Ablation:
    """Ablate the main input and the model's blocks.

    Raises:
        NotApplicable: one sample, or errors that are no numbers before anything is ablated.
        UsageError: an unknown fill, one that the input's type has no meaning for, or unknown channels.
        OutOfTime: before anything was tested.
    """
    if len(case.samples) < 2:
        raise NotApplicable("ablation compares samples, and there is only one: give it more")
    inputs = InputAblation(case)
    baseline = inputs.passes.baseline[0].cpu().double().numpy()
    if not np.isfinite(baseline).all():
        bad = int((~np.isfinite(baseline)).sum())
        raise NotApplicable(
            f"{bad} of {baseline.size} samples have an error that is no number before anything is ablated: "
            "look for NaN and infinity in inputs and targets (`torchwatch data`)"
        )
    found = blocks(case.model)
    without: dict[str, Tensor | None] = {}
    total, done, out_of_time = inputs.total + len(found), 0, False
    try:
        for tested in _tests(case, inputs, found, without):
            done += tested
            case.tick(done, total)
    except OutOfTime:
        if not inputs.anything:
            raise
        out_of_time = done < total
    parts = tuple(inputs.results())
    if found:
        parts = (*parts, _of_blocks(found, without, len(case.samples), _module_fill(case)))
    return _result(case, inputs, parts, float(baseline.mean()), out_of_time=out_of_time)


def _tests(
    case: Case, inputs: InputAblation, found: Mapping[str, nn.Module], without: dict[str, Tensor | None]
) -> Iterator[int]:
    """Run all tests, the first draw of everything first; yields how many were done at a time."""
    yield from inputs.round(0)
    batch, fill = inputs.passes.batch, _module_fill(case)
    bare = errors_without(case, None, fill, batch)
    for name, block in found.items():
        errors = errors_without(case, block, fill, batch)
        without[name] = None if errors is None or bare is None else errors - bare
        yield 1
    for draw in range(1, inputs.rounds):
        yield from inputs.round(draw)


def _module_fill(case: Case) -> str:
    """Blocks give out what no other sample's output could stand for: the mean, unless zero is wanted."""
    return "zero" if case.options.fill == "zero" else "mean"


def _of_blocks(
    found: Mapping[str, nn.Module], without: Mapping[str, Tensor | None], samples: int, fill: str
) -> AxisAblation:
    estimates, draws = [], np.zeros(len(found), dtype=np.int64)
    for i, name in enumerate(found):
        changes = without.get(name)
        if changes is None or not bool(changes.isfinite().all()):
            estimates.append((float("nan"), float("nan")))
            continue
        draws[i] = 1
        estimates.append(paired(changes.double().numpy()[None]))
    part = Part("module", "module", tuple(Element(name, ()) for name in found))
    return axis_ablation(part, estimates, fill, draws, samples)


def _result(
    case: Case, inputs: InputAblation, parts: tuple[AxisAblation, ...], baseline: float, *, out_of_time: bool
) -> Ablation:
    first = parts[0]
    metric = "mean squared error" if case.task.name == "regression" else "negative log-likelihood"
    samples = len(case.samples)
    return Ablation(
        axis=first.axis,
        importance=first.importance,
        interval=first.interval,
        ranking=first.ranking,
        parts=parts,
        baseline=baseline,
        metric=metric,
        fill=case.options.fill,
        repeats=inputs.rounds,
        samples=samples,
        batch=inputs.passes.batch,
        shortcut=inputs.layer,
        remarks=remarks_of(parts, baseline, metric, samples, out_of_time=out_of_time),
    )


EXAMINATION = Examination(
    title="Ablation",
    examine=examine,
    tells="which channels, windows, features and blocks the model cannot do without",
    needs_targets=True,
)
