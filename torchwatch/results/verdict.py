"""Result of the verdict: what is to blame, with the evidence for and against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchwatch.results.autopsy import Remark

Name = Literal["training", "architecture", "data", "task ceiling"]
Confidence = Literal["clear", "leaning", "undecided"]
NAMES: tuple[Name, ...] = ("training", "architecture", "data", "task ceiling")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation that speaks for or against a hypothesis.

    Attributes:
        hypothesis: which one.
        weight: by how much it changes the log-odds (nats); above 0 for, below 0 against.
        says: what was observed, with its numbers.
        examination: where it was observed; ``run`` for what the run's checks found.
    """

    hypothesis: Name
    weight: float
    says: str
    examination: str


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One possible limit of the model.

    Attributes:
        name: ``training``, ``architecture``, ``data`` or ``task ceiling``.
        score: sum of the weights (nats).
        share: exp(score) over the sum of all four: how the evidence divides between them. Not a probability
            that was measured.
        evidence_for: what speaks for it, strongest first.
        evidence_against: what speaks against it, strongest first.
        next_experiment: what would tell it apart from the others.
    """

    name: Name
    score: float
    share: float
    evidence_for: tuple[Evidence, ...]
    evidence_against: tuple[Evidence, ...]
    next_experiment: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The four hypotheses, the best supported first.

    Attributes:
        hypotheses: in order of their share.
        confidence: ``clear``: the first has three quarters of the evidence or more; ``leaning``: half;
            ``undecided`` otherwise.
        summary: one sentence for people.
        missing: examinations that gave no evidence because they were not done.
        remarks: the summary, and what weakens it.
    """

    hypotheses: tuple[Hypothesis, ...]
    confidence: Confidence
    summary: str
    missing: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def first(self) -> Hypothesis:
        """The hypothesis with the most support."""
        return self.hypotheses[0]
