"""The page of the verdict: the four hypotheses, what speaks for and against each, and what to try next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwatch.report import style
from torchwatch.report.autopsy import Drawing
from torchwatch.report.document import Block, Bullets, Callout, Fold, Plot, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.figure import Figure

    from torchwatch.results.verdict import Evidence, Hypothesis, Verdict


def blocks(result: Verdict) -> list[Block]:
    """The first hypothesis in full, the others folded."""
    first, *others = result.hypotheses
    title = f"{first.name.capitalize()}: {result.confidence} ({first.share:.0%} of the evidence)."
    found: list[Block] = [Callout("info", title, ""), Plot("verdict_evidence"), *_of(first)]
    found += [Fold(f"{h.name.capitalize()} ({h.share:.0%})", _of(h)) for h in others]
    if result.missing:
        names = ", ".join(n.replace("_", " ") for n in result.missing)
        found.append(Text(f"Without evidence from: {names}, which gave no result.", quiet=True))
    return found


def _of(hypothesis: Hypothesis) -> list[Block]:
    lines = [
        *_lines("for", hypothesis.evidence_for),
        *_lines("against", hypothesis.evidence_against),
        ("next experiment", hypothesis.next_experiment),
    ]
    return [Bullets(lines)]


def _lines(side: str, evidence: Iterable[Evidence]) -> list[tuple[str, str]]:
    return [(f"{side}, {e.examination.replace('_', ' ')} ({e.weight:+.1f})", e.says) for e in evidence]


def _draw(result: Verdict, theme: style.Theme) -> Figure | None:
    """Evidence for to the right, against to the left, of each hypothesis."""
    drawn = style.figure(2.6)
    axes = drawn.add_subplot()
    for place, hypothesis in enumerate(reversed(result.hypotheses)):
        right, left = 0.0, 0.0
        for evidence in hypothesis.evidence_for:
            axes.barh(place, evidence.weight, left=right, color=theme.series[0], edgecolor=theme.panel)
            right += evidence.weight
        for evidence in hypothesis.evidence_against:
            axes.barh(place, evidence.weight, left=left, color=theme.series[1], edgecolor=theme.panel)
            left += evidence.weight
        axes.plot([hypothesis.score], [place], marker="D", color=theme.ink, markersize=6)
    axes.set_yticks(range(len(result.hypotheses)), [h.name for h in reversed(result.hypotheses)])
    axes.axvline(0.0, color=theme.muted, linewidth=1.0)
    axes.set_xlabel("evidence against ← weight (nats of log-odds) → evidence for")
    return drawn


def _caption(result: Verdict) -> str:
    return (
        "One segment per observation; the diamond is their sum. The evidence divides between the four as "
        f"{_shares(result)}. The weights are judgements, not measured probabilities."
    )


def _shares(result: Verdict) -> str:
    return ", ".join(f"{h.name} {h.share:.0%}" for h in result.hypotheses)


DRAWINGS = (Drawing("verdict_evidence", "Verdict", _draw, _caption),)
