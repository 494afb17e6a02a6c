"""Runs beside each other: what differs between two, and where a project is going."""

from torchwatch.comparison.compare import Compared, Comparison, Difference, compare
from torchwatch.comparison.parting import Parting, parting
from torchwatch.comparison.trend import Entry, Project, project_trend

__all__ = [
    "Compared",
    "Comparison",
    "Difference",
    "Entry",
    "Parting",
    "Project",
    "compare",
    "parting",
    "project_trend",
]
