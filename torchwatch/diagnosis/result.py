"""What a diagnosis says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from torchwatch.check import Severity
from torchwatch.diagnosis.sustainability import Sustainability
from torchwatch.engine import Incident
from torchwatch.records import Alert, Epoch, Record, encode


@dataclass(frozen=True, slots=True)
class LayerHighlight:
    """A layer with issues. ``score`` adds 20 per critical, 7 per warning and 2 per info."""

    layer: str
    type: str
    score: int
    issues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was wrong in a run, and what could not be told.

    Attributes:
        id: the run's id.
        run: path of the run file, or the run's name where there is no file.
        created_at: when the run started (ISO 8601), from its header.
        model: class of the model.
        arch_type: what kind of model it is: ``cnn``, ``transformer``, ``rnn`` (several joined by ``+``) or
            ``generic``; None where no layout was recorded.
        status: ``finished``, ``interrupted`` or ``crashed``; ``unfinished`` where there is no end record.
        complete: whether nothing was lost: an end record that says so, and no torn line.
        steps: step records.
        epochs: epoch records.
        duration_s: length of the run (seconds).
        health_score: 100 to 0, None for a run without steps: there is nothing to judge.
        band: ``excellent``, ``good``, ``warning`` or ``critical``; ``not judged`` where there is no score.
        issues: every issue at its worst severity, worst first; ``state`` says whether it was still open.
        incidents: the issues under their roots.
        not_run: check → why it came to no verdict. Not run is not passed.
        layers: layers with issues, worst first.
        sustainability: what the run used, and what of it was in vain.
        epoch_trend: epoch records in order (at most 4,096: then the older ones are thinned).
        recorded_alerts: alert lines in the file.
        replayed_alerts: alerts that the records gave now.
        replay_matches: whether those are the same, in the same places. None where that cannot be expected:
            an incomplete run, another version of torchwatch, or overridden limits.
        replay_difference: the first difference, in words.
        unknown_limits: names in the header's limits and ignores that this version does not know.
        torn_lines: lines that could not be read.
        rank: rank of the process whose file was judged.
        world: number of ranks of the run.
        rank_files: how many ranks have a file; the one of ``rank`` was judged, as it was live, and where that
            is 0 the ranks were compared.
        wall_s: how long the diagnosis took (seconds).
        steps_per_s: how fast it was (steps per second).
    """

    id: str
    run: str
    created_at: str
    model: str
    arch_type: str | None
    status: str
    complete: bool
    steps: int
    epochs: int
    duration_s: float
    health_score: int | None
    band: str
    issues: tuple[Alert, ...]
    incidents: tuple[Incident, ...]
    not_run: Mapping[str, str]
    layers: tuple[LayerHighlight, ...]
    sustainability: Sustainability
    epoch_trend: tuple[Epoch, ...]
    recorded_alerts: int
    replayed_alerts: int
    replay_matches: bool | None
    replay_difference: str | None
    unknown_limits: tuple[str, ...]
    torn_lines: int
    rank: int
    world: int
    rank_files: int
    wall_s: float
    steps_per_s: float

    @property
    def issue_count(self) -> int:
        """Number of issues: one per check and layer."""
        return len(self.issues)

    @property
    def session_issues(self) -> tuple[Alert, ...]:
        """Issues of the whole run, of no single layer."""
        return tuple(i for i in self.issues if i.layer is None)

    @property
    def severities(self) -> dict[str, int]:
        """Issues per severity, worst first."""
        count = Counter(i.severity for i in self.issues)
        return {s.word: count[s.word] for s in sorted(Severity, reverse=True)}

    @property
    def categories(self) -> dict[str, int]:
        """Issues per category, sorted by name; categories without issues are left out."""
        return dict(sorted(Counter(i.category for i in self.issues).items()))

    def as_json(self) -> dict[str, Any]:
        """Plain, strict JSON: ``issues`` holds the same objects as the alert lines of a run file."""
        body: dict[str, Any] = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("issues", "incidents", "layers", "sustainability", "epoch_trend")
        }
        return body | {
            "issue_count": self.issue_count,
            "severities": self.severities,
            "categories": self.categories,
            "issues": [_plain(i) for i in self.issues],
            "incidents": [_plain_incident(i) for i in self.incidents],
            "layers": [dataclasses.asdict(layer) | {"issues": list(layer.issues)} for layer in self.layers],
            "session_issues": [f"{i.check} ({i.severity})" for i in self.session_issues],
            "sustainability": self.sustainability.as_json(),
            "epoch_trend": [_plain(e) for e in self.epoch_trend],
            "not_run": dict(self.not_run),
            "unknown_limits": list(self.unknown_limits),
        }


def _plain(record: Record) -> Any:
    return orjson.loads(encode(record))


def _plain_incident(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "root": _plain(incident.root),
        "symptoms": [_plain(s) for s in incident.symptoms],
        "explanation": incident.explanation,
    }
