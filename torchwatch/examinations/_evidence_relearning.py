"""What the relearning attempts say about the four hypotheses.

The reasoning: whoever does better on the same data shows that the data hold more than the patient took out.
If copies of the patient do, its training is at fault; if only another learner does, its architecture; if the
held-out samples alone teach what the training samples do not, the data; and if nobody does, there is no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torchwatch.results.relearning import Attempt, Relearning
from torchwatch.results.verdict import Evidence

_HERE = "relearning"
_LEARNED = 0.2
"""Share of the naive error that a model must have lost on its training samples to have learned them."""
_LARGE_GAIN = 0.15
"""Gain, as a share of the naive error, that is evidence in full."""
_NOT_BY_HEART, _HARDLY_BY_HEART = 0.5, 0.9


def evidence(result: Relearning) -> Iterator[Evidence]:
    """Evidence of one result."""
    patient = result.attempts[0]
    copies = [a for a in (result["continued"], result["restarted"]) if a is not None]
    reference = result["reference"]
    best_copy = max(copies, key=lambda a: a.skill, default=None)
    if best_copy is not None and best_copy.better:
        yield from _of_better_copy(best_copy, copies, patient)
    elif copies:
        yield Evidence("training", -1.0, "Neither training on nor starting anew did better.", _HERE)
    if reference is not None:
        yield from _of_reference(reference, result["reference_within"], best_copy, patient)
    yield from _of_what_is_left(patient, result)
    yield from _of_memory(result)


def _of_better_copy(best: Attempt, copies: list[Attempt], patient: Attempt) -> Iterator[Evidence]:
    skills = f"a skill of {best.skill:.2f} on held-out samples, the model has {patient.skill:.2f}"
    size = _size(best)
    if any(c.name == "continued" and c.better for c in copies):
        says = (
            f"A copy that trained on reached {skills}: training ended too early, or its steps were too small."
        )
        yield Evidence("training", 2.5 * size, says, _HERE)
    else:
        says = f"A copy with fresh weights reached {skills}: the architecture can learn this."
        yield Evidence("training", 3.0 * size, says, _HERE)
    against = f"The same architecture reached {skills}."
    yield Evidence("architecture", -1.5 * size, against, _HERE)
    yield Evidence("data", -1.0 * size, f"The same data taught a copy {skills}.", _HERE)
    yield Evidence("task ceiling", -2.5 * size, against, _HERE)


def _size(attempt: Attempt) -> float:
    """How much a gain counts, 0 to 1: a small one is true as well, but explains little."""
    return min(1.0, max(0.0, attempt.gain) / _LARGE_GAIN)


def _ahead(attempt: Attempt) -> float:
    """How much of a lead counts, 0 to 1: all of a clear one, of others what is beyond one standard error."""
    if attempt.better:
        return _size(attempt)
    error = (attempt.gain_interval[1] - attempt.gain) / 1.96
    return min(1.0, max(0.0, attempt.gain - error) / _LARGE_GAIN)


def _of_reference(
    reference: Attempt, within: Attempt | None, best_copy: Attempt | None, patient: Attempt
) -> Iterator[Evidence]:
    reached = max(patient.skill, best_copy.skill if best_copy is not None else -math.inf)
    if reference.better and reference.skill_interval[0] > reached:
        size = min(1.0, (reference.skill - reached) / _LARGE_GAIN)
        what = reference.what[0].upper() + reference.what[1:]
        says = f"{what} reached a skill of {reference.skill:.2f}, model and copies at most {reached:.2f}."
        yield Evidence("architecture", 2.5 * size, says, _HERE)
        yield Evidence("task ceiling", -2.0 * size, says, _HERE)
        yield Evidence("data", -1.0 * size, says, _HERE)
    if within is not None and within.skill_interval[0] > max(0.05, reference.skill_interval[1], reached):
        says = (
            f"Learned from other held-out samples the reference reaches a skill of {within.skill:.2f}, from "
            f"the training samples {reference.skill:.2f}: their labels do not show what the held-out ones do."
        )
        yield Evidence("data", 3.0, says, _HERE)
        yield Evidence("task ceiling", -2.0, says, _HERE)


def _of_what_is_left(patient: Attempt, result: Relearning) -> Iterator[Evidence]:
    """The less anybody is ahead of the patient, the more it has found what there is."""
    skill = f"{patient.skill:.2f} [{patient.skill_interval[0]:.2f}, {patient.skill_interval[1]:.2f}]"
    if any(a.skill_interval[0] > 0 for a in result.attempts):
        best = max(result.attempts, key=lambda a: a.skill)
        left = 1 - max(_ahead(a) for a in result.attempts)
        if left > 0:
            says = (
                f"The model's skill is {skill}, that of the best learner on the same data {best.skill:.2f}."
            )
            yield Evidence("task ceiling", 2.0 * left, says, _HERE)
            yield Evidence("architecture", -0.5 * left, says, _HERE)
        return
    says = f"No learner found any relation between inputs and targets (the model's skill is {skill})."
    yield Evidence("data", 1.5, says, _HERE)
    yield Evidence("task ceiling", 0.5, says, _HERE)
    learned = 1 - patient.train_error / max(result.naive_error, 1e-12)
    if learned > _LEARNED:
        says = f"Learned by heart: {learned:.0%} of the training error went away, none of the held-out one."
        yield Evidence("data", 1.0, says, _HERE)


def _of_memory(result: Relearning) -> Iterator[Evidence]:
    if math.isnan(result.memorised):
        return
    share, count = max(0.0, result.memorised), result.memorised_samples
    says = f"A copy with fresh weights got rid of {share:.0%} of the error on {count} samples by heart."
    if share < _NOT_BY_HEART:
        yield Evidence("architecture", 2.5, says, _HERE)
        yield Evidence("task ceiling", -1.0, says, _HERE)
        yield Evidence("data", -1.0, says, _HERE)
    elif share < _HARDLY_BY_HEART:
        yield Evidence("architecture", 0.7, says, _HERE)
    else:
        yield Evidence("architecture", -1.0, says, _HERE)
