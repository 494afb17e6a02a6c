"""What a head contributes: how much the output changes when the head's output is set to zero.

An experiment, unlike the weights: Michel, Levy & Neubig, "Are Sixteen Heads Really Better than One?", 2019.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchwatch.examinations import tasks
from torchwatch.examinations._attention_calls import Call, watching
from torchwatch.examinations._attention_numbers import Tally
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks

Floats = npt.NDArray[np.float64]

TOTAL_VARIATION = "total variation of the predicted probabilities"
RELATIVE = "RMS change of the output over its standard deviation"
_PASSES = 2048
"""Samples that are passed through the model, all heads together."""
_MOST_SAMPLES = 64
_LEAST_SAMPLES = 8


def contributions(case: Case, tallies: Iterable[Tally]) -> tuple[dict[str, tuple[Floats, Floats]], int]:
    """Change of the output and of the mean error without each head, by name of the attention, each (H,).

    Args:
        case: model and samples; the first at most 64, fewer for many heads.
        tallies: the attentions. What was ``returned`` cannot be silenced, and of more heads than 256 only so
            many are, evenly spaced: NaN for the rest.

    Returns:
        The changes, and the number of samples; 0 where there is no head to silence.
    """
    found = {t.name: (np.full(t.shape[0], np.nan), np.full(t.shape[0], np.nan)) for t in tallies}
    heads = [(t.name, h) for t in tallies if t.source != "returned" for h in range(t.shape[0])]
    most = _PASSES // _LEAST_SAMPLES
    if len(heads) > most:
        heads = [heads[i * len(heads) // most] for i in range(most)]
    if not heads:
        return found, 0
    count = min(len(case.samples), _MOST_SAMPLES, max(_LEAST_SAMPLES, _PASSES // len(heads)))
    inputs = {k: v[:count] for k, v in case.samples.inputs.items()}
    targets = None if case.targets is None else case.targets[:count]
    before = case.outputs[:count]
    error = None if targets is None else _mean(case.errors(before, targets))
    for i, (name, head) in enumerate(heads):
        after = _without(case, inputs, name, head)
        found[name][0][head] = change(before, after, case.task)
        if targets is not None and error is not None:
            found[name][1][head] = _mean(case.errors(after, targets)) - error
        case.tick(i + 1, len(heads))
    return found, count


def change(before: Tensor, after: Tensor, task: tasks.Task) -> float:
    """How much canonical outputs differ.

    Classes: mean total variation ½ Σ |Δp| of the probabilities (of each label, |Δp|), between 0 and 1.
    Regression: root mean square of the change over the standard deviation of the outputs over samples, NaN
    where that is 0.
    """
    if task.classifies:
        moved = (tasks.probabilities(after, task) - tasks.probabilities(before, task)).abs().double()
        each = moved if task.name in ("binary", "multilabel") else moved.sum(-1) / 2
        return float(each.mean())
    rms = (after - before).double().square().mean().sqrt()
    spread = (before - before.mean(0)).double().square().mean().sqrt()
    return float(rms / spread) if float(spread) > 0 else float("nan")


def _without(case: Case, inputs: dict[str, Tensor], name: str, head: int) -> Tensor:
    count = next(iter(inputs.values())).shape[0]

    def work(start: int, end: int) -> Tensor:
        with watching(case.model, end - start, _ignore, silence=(name, head)), torch.no_grad():
            return case.forward({k: v[start:end] for k, v in inputs.items()}).cpu()

    return torch.cat([part for _, _, part in in_chunks(work, count, min(count, case.options.chunk))])


def _ignore(_: Call) -> None:
    """Nobody listens."""


def _mean(errors: Tensor) -> float:
    return float(errors.double().mean())
