"""Result of trying whether more can be learned from the same data."""

from __future__ import annotations

from dataclasses import dataclass

from torchwatch.results.autopsy import Remark


@dataclass(frozen=True, slots=True)
class Attempt:
    """One learner, judged on the same held-out samples as the patient.

    Attributes:
        name: ``patient``, ``continued``, ``restarted``, ``reference`` or ``reference_within`` (learned from
            the other held-out samples, leave-one-out).
        what: the learner in words.
        error: mean error on the held-out samples: squared error, or share of wrong answers.
        train_error: the same on samples it was fitted on.
        skill: 1 − error / error of the naive prediction; 0 is no better than naive, 1 is perfect.
        skill_interval: 95 % interval of the skill, from differences to the naive error paired by sample.
        gain: by how much of the naive error it is better than the patient, errors above ten times the naive
            one counted as that; 0 for the patient.
        gain_interval: 95 % interval of the gain, from differences paired by sample.
        steps: optimizer steps; 0 for closed forms and for the patient.
        seconds: time it took (s).
    """

    name: str
    what: str
    error: float
    train_error: float
    skill: float
    skill_interval: tuple[float, float]
    gain: float
    gain_interval: tuple[float, float]
    steps: int = 0
    seconds: float = 0.0

    @property
    def better(self) -> bool:
        """Clearly better than the patient, and than the naive prediction."""
        return self.gain_interval[0] > 0 and self.skill_interval[0] > 0


@dataclass(frozen=True, slots=True)
class Relearning:
    """What other learners get out of the patient's data.

    Attributes:
        metric: ``squared error`` or ``share of wrong answers``.
        naive_error: error of the best constant answer of the training samples.
        attempts: the patient first.
        memorised: share of the naive error that a restarted copy could remove from a few training samples;
            1 is all of it. NaN where it was not tried.
        memorised_samples: how many those were.
        trained_on: how many samples the attempts learned from.
        tested_on: how many held-out samples judged them.
        own_split: no training data were given: the samples themselves were split, so the patient may have
            seen some of either part.
        remarks: what is to be said of it.
    """

    metric: str
    naive_error: float
    attempts: tuple[Attempt, ...]
    memorised: float
    memorised_samples: int
    trained_on: int
    tested_on: int
    own_split: bool
    remarks: tuple[Remark, ...] = ()

    def __getitem__(self, name: str) -> Attempt | None:
        return next((a for a in self.attempts if a.name == name), None)
