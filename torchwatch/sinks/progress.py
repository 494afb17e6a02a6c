"""Where a run is now: step, epoch, loss, throughput, memory, time, and what is open."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from torchwatch.records import Alert, End, Epoch, Eval, Interval, RunHeader, Step, Steps, System, as_list
from torchwatch.sinks.lines import count, plural, seconds
from torchwatch.text import duration, number, printable, size

if TYPE_CHECKING:
    from torchwatch.records import Record

PROGRESS_S = 5.0
"""Where there is no screen to refresh, one line of progress per so many seconds of the run."""

WINDOW_S = 10.0
"""Throughput is over the last so many seconds of the run."""


class Progress:
    """The latest state of a run, from its records in order; what was not measured stays None.

    Attributes:
        steps_per_s, samples_per_s: over the last ten seconds of the run, evaluation included.
        rss_bytes, cuda_bytes: the latest reading of resident and of allocated device memory.
        open: number of open issues by severity.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.step = 0
        self.epoch: int | None = None
        self.time_s = 0.0
        self.loss: float | None = None
        self.metrics: dict[str, float | None] = {}
        self.rss_bytes: float | None = None
        self.cuda_bytes: float | None = None
        self.open: dict[str, int] = {}
        self._issues: dict[tuple[str, str], str] = {}
        self._samples: int | None = None
        self._marks: deque[tuple[float, int, int | None]] = deque()

    def feed(self, record: Record) -> None:
        """Take in one record; a header begins anew, since another run can take a followed file's place."""
        if isinstance(record, RunHeader):
            self._forget()
        elif isinstance(record, Step):
            self._advance(record.step, record.epoch, record.time_s, record.loss, [record.samples])
        elif isinstance(record, Steps) and record.step:
            self._advance(
                record.step[-1], _last(record.epoch), _last(record.time_s), _last(record.loss), record.samples
            )
        elif isinstance(record, (System, Interval)):
            self.rss_bytes = seconds(record.rss_bytes) or self.rss_bytes
            self.cuda_bytes = seconds(record.cuda_allocated_bytes) or self.cuda_bytes
            self.time_s = max(self.time_s, seconds(record.time_s) or 0.0)
        elif isinstance(record, (Eval, Epoch)):
            self.metrics.update(record.metrics)
            self.time_s = max(self.time_s, seconds(record.time_s) or 0.0)
        elif isinstance(record, Alert):
            self._alert(record)
        elif isinstance(record, End):
            self.time_s = max(self.time_s, seconds(record.time_s) or 0.0)

    @property
    def steps_per_s(self) -> float | None:
        """Steps per second of wall time, or None before two steps were seen."""
        return self._rate(1)

    @property
    def samples_per_s(self) -> float | None:
        """Samples per second of wall time, or None where the samples are not known."""
        return self._rate(2)

    def line(self, *, issues: bool = True) -> str:
        """One line for people; what is not known is left out. ``issues``: count the open ones as well."""
        parts = [f"step {count(self.step)}"]
        parts += [f"epoch {count(self.epoch)}"] if self.epoch is not None else []
        parts += [f"loss {number(self.loss)}"] if self.loss is not None else []
        if self.samples_per_s is not None:
            parts.append(f"{_rate(self.samples_per_s)} samples/s")
        elif self.steps_per_s is not None:
            parts.append(f"{_rate(self.steps_per_s)} steps/s")
        parts += [f"RAM {size(self.rss_bytes)}"] if self.rss_bytes else []
        parts += [f"GPU {size(self.cuda_bytes)}"] if self.cuda_bytes else []
        parts.append(duration(self.time_s))
        parts += self._open_issues() if issues else []
        parts += [f"{printable(k, 24)} {number(v)}" for k, v in self._validation()]
        return " · ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values under ``"kind": "status"``."""
        names = ("step", "epoch", "time_s", "loss", "steps_per_s", "samples_per_s", "rss_bytes", "cuda_bytes")
        body: dict[str, Any] = {"kind": "status", **{name: getattr(self, name) for name in names}}
        return body | {"metrics": dict(self.metrics), "open": dict(self.open)}

    def _advance(self, step: Any, epoch: Any, time_s: Any, loss: Any, samples: list[Any] | None) -> None:
        self.step = step if isinstance(step, int) else self.step
        self.epoch = epoch if isinstance(epoch, int) else self.epoch
        self.time_s = seconds(time_s) or self.time_s
        self.loss = seconds(loss) if loss is not None else self.loss
        seen = [n for n in samples or () if isinstance(n, int)]
        if seen:
            self._samples = (self._samples or 0) + sum(seen)
        self._marks.append((self.time_s, self.step, self._samples))
        while len(self._marks) > 2 and self._marks[-1][0] - self._marks[0][0] > WINDOW_S:
            self._marks.popleft()

    def _rate(self, column: int) -> float | None:
        if len(self._marks) < 2:
            return None
        first, last = self._marks[0], self._marks[-1]
        elapsed, before, after = last[0] - first[0], first[column], last[column]
        if before is None or after is None or elapsed <= 0:
            return None
        return (after - before) / elapsed

    def _validation(self) -> list[tuple[str, float]]:
        shown = [(k, v) for k, v in self.metrics.items() if isinstance(v, float) and k.startswith("val")]
        return shown[:2]

    def _open_issues(self) -> list[str]:
        critical, warnings = self.open.get("critical"), self.open.get("warning")
        parts = [f"{critical} critical"] if critical else []
        return [*parts, plural(warnings, "warning")] if warnings else parts

    def _alert(self, alert: Alert) -> None:
        issue, severity = (str(alert.check), str(alert.layer)), printable(alert.severity, 10)
        before = self._issues.pop(issue, None)
        if before is not None:
            self.open[before] -= 1
        if alert.state != "resolved":
            self._issues[issue] = severity
            self.open[severity] = self.open.get(severity, 0) + 1


class Pace:
    """Says when a line of progress is due: by the time of the run, never by the clock.

    Args:
        every_s: a line at most this often (seconds of the run).
    """

    def __init__(self, every_s: float = PROGRESS_S) -> None:
        self._every_s = every_s
        self._last_s = -every_s
        self._step = 0

    def is_due(self, progress: Progress) -> bool:
        """Whether the run moved on by at least one step and by ``every_s`` since this was last true."""
        if progress.step == self._step or progress.time_s - self._last_s < self._every_s:
            return False
        self._last_s, self._step = progress.time_s, progress.step
        return True


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _last(values: Any) -> Any:
    return next((v for v in reversed(as_list(values) or ()) if v is not None), None)
