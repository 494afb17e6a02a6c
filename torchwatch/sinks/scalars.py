"""A run as rows of numbers, at a rate that a dashboard can take: what TensorBoard and W&B are given.

Names: ``loss``, ``grad_norm``, ``lr`` and other scalars of a step; ``metric/<name>`` for whatever the loop
logs or evaluates; ``interval/<field>``; ``system/<field>``; ``issues/<severity>`` (open ones) and
``health_score``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.check import Severity
from torchwatch.engine import health_score
from torchwatch.records import Alert, End, Epoch, Eval, Interval, Step, Steps, System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torchwatch.records import Record

EVERY_S = 1.0
"""Steps become at most one row per so many seconds of the run; the run file has them all."""

STEP_NUMBERS = (
    "loss", "grad_norm", "grad_norm_preclip", "update_ratio", "grad_scale", "samples", "step_time_s",
    "wait_time_s", "watch_time_s",
)  # fmt: skip

_NOT_SHOWN = ("index", "first_step", "last_step", "steps", "epoch", "time_s", "step", "sentinel")
_MOST_GROUPS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """Numbers of one step; ``time_s`` from the start of the run."""

    step: int
    time_s: float
    values: dict[str, float]


class Issues:
    """The issues of a run so far, from its alerts: the latest alert of each check and layer.

    Attributes:
        latest: by (check, layer), in order of first appearance.
    """

    def __init__(self) -> None:
        self.latest: dict[tuple[str, str | None], Alert] = {}
        self._worst: dict[str, Severity] = {}

    def feed(self, alert: Alert) -> None:
        """Take in one alert."""
        self.latest[str(alert.check), alert.layer] = alert
        severity = severity_of(alert)
        self._worst[alert.check] = max(severity, self._worst.get(alert.check, severity))

    @property
    def health_score(self) -> int:
        """As :func:`torchwatch.engine.health_score` has it, 100 to 0."""
        return health_score(self._worst.values())

    @property
    def open(self) -> dict[str, int]:
        """How many issues are open, by severity; all three are there."""
        now = [severity_of(a) for a in self.latest.values() if a.state != "resolved"]
        return {s.word: now.count(s) for s in Severity}

    def values(self) -> dict[str, float]:
        """The score and the counts under their names in a row."""
        return {"health_score": self.health_score, **{f"issues/{k}": n for k, n in self.open.items()}}


def severity_of(alert: Alert) -> Severity:
    """The severity of an alert; a word that is none counts as info."""
    return next((s for s in Severity if s.word == alert.severity), Severity.INFO)


class Scalars:
    """Turns records into rows.

    Args:
        every_s: steps are gathered for so long (seconds of the run); a row has the latest value of each name.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.issues = Issues()
        self._every_s = every_s
        self._window: dict[str, float] = {}
        self._step, self._time_s = 0, 0.0
        self._due_s = 0.0
        self._judged = False  # whether the latest score and counts are in a row
        self._evaluated: dict[str, float] = {}

    def feed(self, record: Record) -> list[Row]:
        """The rows due because of this record."""
        if isinstance(record, Alert):
            self.issues.feed(record)
            self._judged = False  # many come at once: the row waits for a record of another kind
            return []
        return [*self._rows(record), *self._judgement()]

    def finish(self) -> list[Row]:
        """The rows that were still being gathered."""
        return [*self._flush(), *self._judgement()]

    def _rows(self, record: Record) -> list[Row]:
        if isinstance(record, (Step, Steps)):
            return self._steps(record)
        values: dict[str, float] = {}
        if isinstance(record, Eval):
            self._evaluated = values = _named("metric/", record.metrics)
        elif isinstance(record, Epoch):
            told = _named("metric/", record.metrics)
            values = {k: v for k, v in told.items() if k not in self._evaluated}
            self._evaluated = {}
        elif isinstance(record, Interval):
            values = _named("interval/", _fields(record))
        elif isinstance(record, System):
            values = _named("system/", _fields(record)) | _gpus(record)
        elif isinstance(record, End):
            return self._flush()
        if not values:
            return []
        self._time_s = max(self._time_s, _number(getattr(record, "time_s", None)) or 0.0)
        return [*self._flush(), Row(self._step, self._time_s, values)]

    def _steps(self, record: Step | Steps) -> list[Row]:
        if isinstance(record, Steps) and not record.step:
            return []
        self._step = record.step[-1] if isinstance(record, Steps) else record.step
        self._time_s = _number(_last(record.time_s)) or self._time_s
        self._window.update(latest(record))
        if self._time_s < self._due_s:
            return []
        return self._flush()

    def _judgement(self) -> list[Row]:
        if self._judged or not self._step:
            return []
        self._judged = True
        return [Row(self._step, self._time_s, self.issues.values())]

    def _flush(self) -> list[Row]:
        values, self._window = self._window, {}
        self._due_s = self._time_s + self._every_s
        return [Row(self._step, self._time_s, values)] if values else []


def latest(record: Step | Steps) -> dict[str, float]:
    """The numbers of a step by name; of a line of steps the latest that was measured of each."""
    found = {n: _number(_last(getattr(record, n))) for n in STEP_NUMBERS}
    rates = _last(record.lr, whole=isinstance(record, Step)) or []
    if len(rates) == 1:
        found["lr"] = _number(rates[0])
    else:
        found |= {f"lr/{i}": _number(v) for i, v in enumerate(rates[:_MOST_GROUPS])}
    found |= {f"metric/{clean(k)}": _number(_last(v)) for k, v in (record.metrics or {}).items()}
    return {k: v for k, v in found.items() if v is not None}


def clean(text: str) -> str:
    """The text with lone surrogates spelled out: whoever takes it may write it as UTF-8."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _last(values: Any, *, whole: bool = False) -> Any:
    """The last entry that is not None, of a list or an array; anything else is itself."""
    if whole or isinstance(values, (int, float)) or values is None:
        return values
    if isinstance(values, np.ndarray):
        return values[-1].item() if len(values) else None
    return next((v for v in reversed(values) if v is not None), None)


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _named(prefix: str, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> dict[str, float]:
    pairs = ((k, _number(v)) for k, v in dict(values).items())
    return {prefix + clean(k): v for k, v in pairs if v is not None}


def _fields(record: Record) -> Iterator[tuple[str, Any]]:
    names = (f.name for f in dataclasses.fields(record) if f.name not in _NOT_SHOWN)
    return ((n, getattr(record, n)) for n in names)


def _gpus(record: System) -> dict[str, float]:
    found: dict[str, float] = {}
    for gpu in record.gpus or ():
        told = {k: v for k, v in gpu.items() if k != "index"}
        found |= _named(f"system/gpu{gpu.get('index', 0)}/", told)
    return found
