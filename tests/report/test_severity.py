from __future__ import annotations

import pytest

from torchwatch.engine import Incident
from torchwatch.records import Alert
from torchwatch.report.severity import rank, worst_first, worst_of


def incident(number: int, root: str, *symptoms: str, since: int = 1) -> Incident:
    return Incident(
        number, Alert(severity=root, since_step=since), tuple(Alert(severity=s) for s in symptoms), ""
    )


@pytest.mark.parametrize(("word", "expected"), [("info", 0), ("warning", 1), ("critical", 2), ("odd", 0)])
def test_rank(word: str, expected: int):
    assert rank(word) == expected


def test_a_warning_at_the_root_of_a_critical_symptom_counts_as_critical():
    assert worst_of(incident(1, "warning", "info", "critical")) == "critical"
    assert worst_of(incident(1, "info")) == "info"


def test_worst_first_then_earliest():
    given = (
        incident(1, "info"),
        incident(2, "warning", since=50),
        incident(3, "warning", since=5),
        incident(4, "warning", "critical", since=90),
    )
    assert [i.id for i in worst_first(given)] == [4, 3, 2, 1]
