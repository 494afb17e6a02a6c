"""What is known of each sample whose attention is looked at: its prediction, and whether that is right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from torchwatch.examinations import tasks
from torchwatch.examinations.case import Case
from torchwatch.results.attention import AttentionSamples

Floats = npt.NDArray[np.float64]


def samples_of(case: Case) -> AttentionSamples:
    """Predicted class, logit, probability, true class and whether it is right; NaN for what there is not."""
    count = len(case.samples)
    predicted, logit, probability = _predicted(case)
    true, correct = np.full(count, np.nan), np.full(count, np.nan)
    if case.targets is not None and _one_answer(case):
        true = case.targets.reshape(count, -1)[:, 0].double().numpy()
        if case.task.classifies:
            true = np.where(true == tasks.IGNORED, np.nan, true)
            correct = np.where(np.isnan(true), np.nan, predicted == true)
    return AttentionSamples(case.samples.index, predicted, logit, probability, true, correct)


def _one_answer(case: Case) -> bool:
    """Whether a sample has one class or one value."""
    task = case.task.name
    return task in ("multiclass", "binary") or (task == "regression" and case.outputs.shape[1] == 1)


def _predicted(case: Case) -> tuple[Floats, Floats, Floats]:
    """Class or value, logit and probability of the class, each (N,)."""
    outputs, task = case.outputs.double(), case.task
    nothing = np.full(outputs.shape[0], np.nan)
    if task.name == "regression" and _one_answer(case):
        return outputs[:, 0].numpy(), nothing, nothing
    if task.name == "binary":
        p, value = tasks.probabilities(outputs, task)[:, 0].numpy(), outputs[:, 0].numpy()
        predicted = np.where(np.isnan(p), np.nan, p >= 0.5)
        logit, probability = value * np.where(predicted > 0, 1, -1), np.maximum(p, 1 - p)
    elif task.name == "multiclass":
        given = tasks.probabilities(outputs, task)
        chosen = given.argmax(1, keepdim=True)
        predicted = chosen[:, 0].double().numpy()
        logit, probability = (t.gather(1, chosen)[:, 0].numpy() for t in (outputs, given))
    else:
        return nothing, nothing, nothing
    return predicted, nothing if task.probabilities else logit, probability
