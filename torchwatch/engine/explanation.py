"""An incident in one paragraph: since when, where, what, why, why not something else, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torchwatch.check import Category, Cause, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchwatch.engine.issues import Issue

_MOST_SYMPTOMS = 4

_CAUSES = {
    Cause.WIRING: "model, loss and optimizer are not connected as intended",
    Cause.INPUT: "the data that goes into the model",
    Cause.PARAMETER: "the weights themselves",
    Cause.ACTIVATION: "what the layers pass on to each other",
    Cause.GRADIENT: "the size of the gradients and of the updates made from them",
    Cause.LOSS: "the optimisation itself: learning rate, regularisation or data",
}
_OTHER_CAUSES = {
    Category.ARCHITECTURE: "how the model is built",
    Category.PROFILER: "where the time of a step goes",
    Category.LOGS: "what the log says",
    Category.THROUGHPUT: "what surrounds the training: data loading, memory or the machine",
    Category.MEMORY: "what surrounds the training: data loading, memory or the machine",
    Category.SYSTEM: "what surrounds the training: data loading, memory or the machine",
}
_PLACES = {
    Cause.WIRING: "the wiring",
    Cause.INPUT: "the inputs",
    Cause.PARAMETER: "the weights",
    Cause.ACTIVATION: "the activations",
    Cause.GRADIENT: "the gradients",
    Cause.LOSS: "the loss",
}


class Alternatives(NamedTuple):
    """Earlier places in the causal order: where checks looked and found nothing, and where none could."""

    quiet: tuple[Cause, ...] = ()
    unknown: tuple[Cause, ...] = ()


def explain(
    root: Issue,
    symptoms: Sequence[Issue],
    before: Sequence[Issue] = (),
    alternatives: Alternatives | None = None,
) -> str:
    """What happened in an incident.

    Args:
        root: its root.
        symptoms: the other issues, earliest first.
        before: roots of other incidents that were wrong when it began.
        alternatives: what else could have been the cause, and was not.
    """
    finding = root.peak
    where = "" if root.layer is None else f" in layer {root.layer}" if root.layer else " in the model itself"
    sentences = [f"Since step {root.since_step}{where}: {_sentence(finding.title)}"]
    if finding.detail:
        sentences.append(_sentence(finding.detail))
    cause = root.context or _CAUSES.get(root.check.cause) or _OTHER_CAUSES.get(root.check.category)
    if cause:
        sentences.append(f"The likely cause is {cause}.")
    if before:
        sentences.append(f"It began while something earlier was wrong: {_listed(before)}.")
    if alternatives is not None:
        sentences += _apart(alternatives)
    fix = root.check.fix if finding.fix is None else finding.fix
    if fix:
        sentences.append(f"What to do: {_sentence(fix)}")
    if symptoms:
        sentences.append(f"What followed: {_listed(symptoms)}.")
    return " ".join(sentences)


def _apart(alternatives: Alternatives) -> list[str]:
    """What tells this cause from those that would come first."""
    said = []
    if alternatives.quiet:
        said.append(f"Checks of {_places(alternatives.quiet)} found nothing that would explain it.")
    if alternatives.unknown:
        many = "was" if len(alternatives.unknown) == 1 and alternatives.unknown[0] is Cause.WIRING else "were"
        words = _places(alternatives.unknown)
        said.append(f"{words[0].upper()}{words[1:]} {many} not looked at.")
    return said


def _places(causes: Iterable[Cause]) -> str:
    *others, last = [_PLACES[cause] for cause in causes]
    return f"{', '.join(others)} and {last}" if others else last


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _listed(issues: Sequence[Issue]) -> str:
    """One issue of each check in its own words, infos last; the rest is counted."""
    first: dict[str, Issue] = {}
    for issue in sorted(issues, key=lambda i: i.worst_severity == Severity.INFO):
        first.setdefault(issue.check.slug, issue)
    named = [
        f"{_phrase(issue.peak.title)} ({slug}, since step {issue.since_step})"
        for slug, issue in first.items()
    ]
    more = len(named) - _MOST_SYMPTOMS
    return "; ".join(named[:_MOST_SYMPTOMS]) + (f"; and {more} more" if more > 0 else "")


def _phrase(title: str) -> str:
    """A title in the middle of a sentence."""
    title = title.strip().rstrip(".")
    return title[:1].lower() + title[1:] if title[1:2].islower() or title[1:2] == " " else title
