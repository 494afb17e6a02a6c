"""Scalars, issues and pictures in Weights & Biases. Needs the package ``wandb``; offline is fine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import orjson

from torchwatch.errors import UsageError
from torchwatch.records import Alert, End, RunHeader, encode
from torchwatch.sinks._extra import package
from torchwatch.sinks._side import Side, SideSink
from torchwatch.sinks.scalars import EVERY_S, Row, Scalars
from torchwatch.sinks.tensorboard import pictures
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.records import Record

PREFIX = "torchwatch/"
PROJECT = "torchwatch"
COLUMNS = (
    "check", "severity", "state", "layer", "since_step", "last_step", "title", "value", "threshold", "fix",
    "incident", "root",
)  # fmt: skip
"""Columns of the table of issues: fields of an alert."""

_TEXT = frozenset({"check", "severity", "state", "layer", "title", "fix"})


class WandbSink(SideSink[Any]):
    """Logs scalars under ``torchwatch/`` and, at the end, the issues as a table.

    **A run that is active** when the first numbers come is used as a guest: what is logged joins the row that
    the loop is about to write and never ends one, so that the loop's own steps stay as they are. Where the
    loop logs rarely, a row holds the latest numbers. **Otherwise** a run of its own is started, and finished
    at the end.

    In both the x axis is ``torchwatch/step``, the step of the run file. A run of its own is offline where
    nobody is logged in: nothing ever asks for a key.

    Args:
        project: of a run of its own (default: ``WANDB_PROJECT``, else ``torchwatch``).
        run: the run to be a guest in (default: the active one).
        every_s: at most one row per so many seconds of the run for the scalars of steps.

    Raises:
        MissingExtra: the package is not installed.
    """

    name = "wandb"

    def __init__(self, project: str | None = None, *, run: Any = None, every_s: float = EVERY_S) -> None:
        self._wandb = package("wandb", self.name)  # takes a second: now, not in the midst of training
        super().__init__(Side(self.name, lambda work: work()))
        self._project, self._run = project, run
        self._own = self._opened_once = False
        self._scalars = Scalars(every_s)
        self._header = RunHeader()
        self._asleep = self._concluded = False

    def write(self, record: Record) -> None:
        """Queue what is due because of this record."""
        if isinstance(record, RunHeader):
            self._header = record
            self._asleep = record.rank != 0 and self._run is None
            if self._asleep:
                self.say("wandb: only rank 0 logs; another rank takes WandbSink(run=...)")
        if self._asleep:
            return
        self._log(self._scalars.feed(record))
        if isinstance(record, End):
            self._conclude()
            self.put(self._ending(record))

    def drain(self, seconds: float) -> None:
        """Log what is still being gathered and the table of issues, and wait for the queue."""
        if not self._asleep:
            self._log(self._scalars.finish())
            self._conclude()
        super().drain(seconds)

    def _log(self, rows: list[Row]) -> None:
        for row in rows:
            values = {PREFIX + k: v for k, v in row.values.items()} | {PREFIX + "step": row.step}
            self.put(self._logging(values))

    # ------------------------------------------------------------------ what the thread does

    def _logging(self, values: dict[str, Any]) -> Callable[[], bool]:
        def log() -> bool:
            self._opened().log(values, commit=self._own)
            return True

        return log

    def _conclude(self) -> None:
        """Once: the table of issues, score and counts."""
        if self._concluded:
            return
        self._concluded = True
        issues = self._scalars.issues
        rows = [_table_row(a) for a in issues.latest.values()]
        summary = {PREFIX + k: v for k, v in issues.values().items()}

        def conclude() -> bool:
            run = self._opened()
            if rows:
                table = self._wandb.Table(columns=list(COLUMNS), data=rows)
                run.log({PREFIX + "issues": table}, commit=self._own)
            run.summary.update(summary)
            return True

        self.put(conclude)

    def _ending(self, end: End) -> Callable[[], bool]:
        told = {"status": end.status, "health_score": end.health_score, "energy_kwh": end.energy_kwh}
        told |= {"co2_kg": end.co2_kg, "watch_share": end.watch_share, "complete": end.complete}

        def finish() -> bool:
            run = self._opened()
            run.summary.update({PREFIX + k: v for k, v in told.items() if v is not None})
            if self._own:
                run.finish(exit_code=0 if end.status == "finished" else 1)
            return True

        return finish

    def _opened(self) -> Any:
        """The run, looked for when something is first logged: the loop may begin its own until then."""
        if not self._opened_once:
            self._opened_once = True
            self._run = self._run or self._wandb.run
            if self._run is None:
                self._run, self._own = self._begin(), True
            self._run.define_metric(PREFIX + "step", hidden=True)
            self._run.define_metric(PREFIX + "*", step_metric=PREFIX + "step")
        return self._run

    def _begin(self) -> Any:
        wandb, mode = self._wandb, None
        if not os.environ.get("WANDB_MODE") and not wandb.login(prompt=False, verify=False):
            mode = "offline"
            self.say("wandb: nobody is logged in: the run is written offline, for `wandb sync`")
        header = orjson.loads(encode(self._header))  # plain values, in UTF-8
        return wandb.init(
            project=self._project or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or header["name"] or None,
            config={**header["hyperparameters"], "model": header["model"], "torchwatch": header["run_id"]},
            mode=mode,
            reinit="create_new",  # the loop's `wandb.run` stays what it is
            settings=wandb.Settings(console="off"),  # the host's streams are not ours to wrap
        )


def log_report(report: str | os.PathLike[str], run: Any = None) -> int:
    """Add the pictures of a written report to a run, under ``torchwatch/report/``, without opening a row.

    Args:
        report: folder of ``torchwatch postmortem``, with its PNG files.
        run: where to (default: the active one).

    Returns:
        How many pictures there were.

    Raises:
        UsageError: the folder holds no picture, or there is no run.
        MissingExtra: the package is not installed.
    """
    wandb = package("wandb", "wandb")
    found = pictures(report)
    run = run if run is not None else wandb.run
    if run is None:
        raise UsageError("there is no active W&B run: call wandb.init() first or pass run=")
    run.log({f"{PREFIX}report/{p.stem}": wandb.Image(os.fspath(p)) for p in found}, commit=False)
    return len(found)


def _table_row(alert: Alert) -> list[Any]:
    """Text and numbers only: a column of a table holds one type."""
    row = [getattr(alert, column) for column in COLUMNS]
    text = [column in _TEXT for column in COLUMNS]
    return [printable("" if v is None else v, 1000) if t else v for v, t in zip(row, text, strict=True)]
