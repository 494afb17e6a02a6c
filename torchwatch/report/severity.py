"""Severities in order, and the worst of an incident."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwatch.engine import Incident

_ORDER = ("info", "warning", "critical")


def rank(severity: str) -> int:
    """0 for info (and for words that are no severity), 1 for warning, 2 for critical."""
    return _ORDER.index(severity) if severity in _ORDER else 0


def worst_of(incident: Incident) -> str:
    """The worst severity in an incident: a warning may be the root of a critical symptom."""
    return max((incident.root.severity, *(s.severity for s in incident.symptoms)), key=rank)


def worst_first(incidents: tuple[Incident, ...]) -> list[Incident]:
    """Incidents by their worst severity, then by onset."""
    return sorted(incidents, key=lambda i: (-rank(worst_of(i)), i.root.since_step, i.id))
