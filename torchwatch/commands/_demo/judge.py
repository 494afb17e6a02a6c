"""Whether the healthy run was quiet, and whether the planted mistake was named as the root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwatch.commands._demo.faults import Fault
    from torchwatch.diagnosis import Diagnosis
    from torchwatch.records import Alert

_LOUD = ("warning", "critical")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the two runs of the demo show.

    Attributes:
        alarms: warnings and worse of the healthy run; there should be none.
        root: the root that names the planted mistake, else the root of the first incident, else None.
        fits: whether ``root`` is a check, a layer and a step that the mistake explains.
        symptoms: checks that were folded under the root.
    """

    alarms: tuple[Alert, ...]
    root: Alert | None
    fits: bool
    symptoms: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The mistake was found, and nothing was found where there was none."""
        return self.fits and not self.alarms


def judge(fault: Fault, healthy: Diagnosis, faulty: Diagnosis) -> Judgement:
    """Compare what was found with what was planted."""
    alarms = tuple(issue for issue in healthy.issues if issue.severity in _LOUD)
    incidents = [i for i in faulty.incidents if i.root.severity in _LOUD]
    incidents.sort(key=lambda i: (not names(fault, i.root), i.root.since_step))
    if not incidents:
        return Judgement(alarms, None, fits=False, symptoms=())
    first = incidents[0]
    symptoms = dict.fromkeys(i.check for i in first.symptoms if i.check != first.root.check)
    return Judgement(alarms, first.root, names(fault, first.root), tuple(symptoms))


def names(fault: Fault, root: Alert) -> bool:
    """Whether the root is one of the fault's checks, at its layer, and began when the fault did."""
    first, last = fault.onset
    at_layer = not fault.layers or root.layer in fault.layers
    return root.check in fault.roots and at_layer and first <= root.since_step <= last
