"""The verdict: training, architecture, data, or the task itself.

Every examination's findings are turned into evidence for or against the four hypotheses, each with a weight
in log-odds; the weights add up. They are judgements, set by what an observation can and cannot tell apart and
checked on planted causes; they were not learned. Without evidence there is no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torchwatch.examinations import (
    _evidence_data,
    _evidence_measured,
    _evidence_relearning,
    _evidence_run,
)
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.verdict import NAMES, Confidence, Evidence, Hypothesis, Name, Verdict

_CLEAR, _LEANING = 0.75, 0.5
_USED = ("relearning", "predictions", "baselines", "activations", "gradient_flow", "data_quality")

_NEXT: dict[Name, str] = {
    "training": "Train again from fresh weights after a learning-rate range test, with warm-up and "
    "clipping; if the training loss then falls well below the naive one, it was training.",
    "architecture": "Let the model learn 32 samples by heart, then widen or unblock the layer that stands in "
    "the way (dead units, a bottleneck, a saturating output) and compare with the reference learner.",
    "data": "Look at twenty samples beside their labels, pair inputs and labels anew from the raw source, "
    "and train on a split by group; a simple learner must then find something on held-out samples.",
    "task ceiling": "Measure the noise of the labels (repeat measurements, or two annotators), and plot "
    "the held-out error against the number of training samples: flat means that this is all there is.",
}

_FIRST: dict[Name, str] = {
    "training": "Training is to blame",
    "architecture": "The architecture is in the way",
    "data": "The data are to blame",
    "task ceiling": "The task itself is the limit: the model has found what these data let anybody find",
}


def examine(case: Case) -> Verdict:
    """Weigh what was found."""
    found = list(_evidence(case))
    if not found:
        raise NotApplicable("no examination gave evidence: let relearning, predictions and data_quality run")
    hypotheses = weigh(found)
    confidence = _confidence(hypotheses[0].share)
    missing = tuple(n for n in _USED if n not in case.results)
    summary = _summary(hypotheses, confidence)
    return Verdict(hypotheses, confidence, summary, missing, _remarks(summary, missing))


def _confidence(share: float) -> Confidence:
    return "clear" if share >= _CLEAR else "leaning" if share >= _LEANING else "undecided"


def weigh(found: Iterable[Evidence]) -> tuple[Hypothesis, ...]:
    """The four hypotheses with their evidence, the best supported first; ties in the order of their names."""
    evidence = list(found)
    scores = {n: math.fsum(e.weight for e in evidence if e.hypothesis == n) for n in NAMES}
    top = max(scores.values())
    total = math.fsum(math.exp(s - top) for s in scores.values())
    hypotheses = (
        Hypothesis(
            name=name,
            score=scores[name],
            share=math.exp(scores[name] - top) / total,
            evidence_for=_sorted(e for e in evidence if e.hypothesis == name and e.weight > 0),
            evidence_against=_sorted(e for e in evidence if e.hypothesis == name and e.weight < 0),
            next_experiment=_NEXT[name],
        )
        for name in NAMES
    )
    return tuple(sorted(hypotheses, key=lambda h: -h.share))


def _sorted(evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    return tuple(sorted(evidence, key=lambda e: -abs(e.weight)))


def _evidence(case: Case) -> Iterator[Evidence]:
    if "relearning" in case.results:
        yield from _evidence_relearning.evidence(case.results["relearning"])
    yield from _evidence_measured.evidence(case.results)
    if "data_quality" in case.results:
        yield from _evidence_data.evidence(case.results["data_quality"])
    if case.diagnosis is not None:
        yield from _evidence_run.evidence(case.diagnosis)


def _summary(hypotheses: tuple[Hypothesis, ...], confidence: Confidence) -> str:
    first, second = hypotheses[:2]
    reason = first.evidence_for[0].says if first.evidence_for else "the others are less likely"
    if confidence == "undecided":
        return f"Undecided between {first.name} and {second.name}. For {first.name}: {reason}"
    hedge = "" if confidence == "clear" else ", probably"
    return f"{_FIRST[first.name]}{hedge}. {reason}"


def _remarks(summary: str, missing: tuple[str, ...]) -> tuple[Remark, ...]:
    said = [Remark("info", summary)]
    if "relearning" in missing:
        text = "Without the relearning attempts, training, architecture and task are hard to tell apart."
        said.append(
            Remark("info", text, "Let them run: --examine relearning,verdict with targets in the data.")
        )
    return tuple(said)


EXAMINATION = Examination(
    title="Verdict of the autopsy",
    examine=examine,
    tells="whether training, architecture, data or the task itself is the limit, with the evidence for each",
    after=(*_USED, "ablation", "attributions", "failures", "groups"),
)
