"""The first lines of a report: how the run ended, how healthy it was."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.report.severity import worst_first, worst_of
from torchwatch.text import duration

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis
    from torchwatch.report.collect import Collected


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the report opens with.

    ``tone`` is good, info, warning or critical; ``status`` that of the end record, else ``unfinished``;
    ``ended`` says how the run ended, ``headline`` all in one line; ``remarks`` are sentences on what the file
    lacks.
    """

    tone: str
    status: str
    headline: str
    ended: str
    remarks: tuple[str, ...]


def judge(found: Collected, diagnosis: Diagnosis) -> Verdict:
    """Put a diagnosis into one line and a tone."""
    worst = Counter(i.severity for i in diagnosis.issues)
    status = found.end.status if found.end is not None else "unfinished"
    tone = _tone(status, worst, found.steps)
    return Verdict(
        tone, status, _headline(found, diagnosis, worst), _ended(found), _remarks(found, diagnosis)
    )


def counted(number: int, word: str) -> str:
    """``no step``, ``1 step``, ``3,000 steps``."""
    return f"no {word}" if not number else f"1 {word}" if number == 1 else f"{number:,} {word}s"


def _tone(status: str, worst: Counter[str], steps: int) -> str:
    if status == "crashed" or worst["critical"]:
        return "critical"
    if status == "unfinished" or worst["warning"]:
        return "warning"
    return "good" if steps else "info"


def _headline(found: Collected, diagnosis: Diagnosis, worst: Counter[str]) -> str:
    if not found.steps:
        return "No training step was recorded, so there is nothing to judge."
    prefix = _prefix(found)
    loud = worst_first(tuple(i for i in diagnosis.incidents if worst_of(i) != "info"))
    if not loud:
        infos = f", {counted(worst['info'], 'remark')}" if worst["info"] else ""
        return f"{prefix}No warning, no critical{infos}."
    root = loud[0].root
    since = "" if f"since step {root.since_step}" in root.title else f" (since step {root.since_step:,})"
    more = f" {counted(len(loud) - 1, 'more incident').capitalize()}." if len(loud) > 1 else ""
    return f"{prefix}{root.title.rstrip('.')}{since}.{more}"


def _prefix(found: Collected) -> str:
    """How a run ended that did not finish."""
    if found.end is None:
        return "Recording without an end. "
    if found.end.status == "crashed":
        return f"Crashed at step {found.end.step:,}. "
    return "Interrupted. " if found.end.status == "interrupted" else ""


def _ended(found: Collected) -> str:
    span = f"{counted(found.steps, 'step')} in {duration(found.time_s)}"
    end = found.end
    if end is None:
        return (
            f"The file ends without an end record after {span}: the process was killed or is still running."
        )
    words = {
        "finished": f"Finished after {span}.",
        "imported": f"A log of {counted(found.steps, 'row')}; how the training ended, it does not say.",
        "interrupted": f"Interrupted by the user after {span}.",
        "crashed": f"Crashed after {span}: {end.error or 'the file does not say with what error'}",
    }
    return words.get(end.status, f"Ended as {end.status} after {span}.")


def _remarks(found: Collected, diagnosis: Diagnosis) -> tuple[str, ...]:
    """What the file lacks: said, never shown as fine."""
    said = []
    end = found.end
    if end is not None and not end.complete:
        said.append(
            f"The recording is marked incomplete: {counted(end.lost_lines, 'line')} lost, details of "
            f"{counted(end.dropped, 'step')} dropped."
        )
    elif found.dropped:
        said.append(f"Under pressure the recorder dropped details of {counted(found.dropped, 'step')}.")
    if diagnosis.torn_lines:
        said.append(f"Skipped as unreadable: {counted(diagnosis.torn_lines, 'torn line')}.")
    return tuple(said)
