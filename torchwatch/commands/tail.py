"""``torchwatch tail``: follow a run from its file, without touching the training."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import click

from torchwatch.commands._shared import (
    console,
    exit_code,
    fail_on_option,
    json_option,
    print_json,
    run_argument,
    unfinished,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.live import Live

    from torchwatch.records import Alert, Record
    from torchwatch.sinks.progress import Progress

REFRESH_S = 0.125
QUIET_S = 10.0
"""After so many seconds without a new line the status line says how long it has been."""


@click.command("tail")
@run_argument
@click.option("--alerts", "alerts_only", is_flag=True, help="Show alerts only, no progress.")
@click.option("--no-follow", is_flag=True, help="Show what is there and stop.")
@click.option("--wait", is_flag=True, help="Wait for the file if there is none yet.")
@click.option("--log-file", metavar="FILE", help="Also append the same to this file as plain text.")
@fail_on_option
@json_option
def command(
    run: str,
    *,
    alerts_only: bool,
    no_follow: bool,
    wait: bool,
    log_file: str | None,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """Follow a run while it is being recorded: progress, and alerts as they come.

    Alerts recorded before are shown first. Ends when the run ends, with its health score; Ctrl-C stops
    following and leaves the training alone. On a pipe there is a line of progress every five seconds of the
    run; with --json each line is an alert, a note, the end of the run, or a status.

    \b
    Example:
      torchwatch tail runs/digits.jsonl
      torchwatch tail runs/digits.jsonl --json --alerts | jq .title
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.records import Alert, RunHeader
    from torchwatch.runfile import follow, read_records

    found: list[Alert] = []
    with ExitStack() as stack:
        screens: list[Screen] = [_screen(stack, as_json=as_json, alerts_only=alerts_only)]
        if log_file is not None:
            screens.append(_LogFile(stack, log_file))
        for record in read_records(run) if no_follow else follow(run, wait=wait):
            for screen in screens:
                screen.show(record)
            if isinstance(record, Alert):
                found.append(record)
            elif isinstance(record, RunHeader):
                found.clear()  # another run took the file's place
        for screen in screens:
            screen.finish(run)
    return exit_code(found, fail_on)


class Screen(Protocol):
    """Where a followed run is shown. None stands for "nothing new at the moment"."""

    def show(self, record: Record | None) -> None:
        """Take in the next record."""

    def finish(self, run: str) -> None:
        """The last record of the file was shown."""


def _screen(stack: ExitStack, *, as_json: bool, alerts_only: bool) -> Screen:
    if as_json:
        return JsonLines(alerts_only=alerts_only)
    out = console()
    if not out.is_terminal or out.is_dumb_terminal or alerts_only:
        return PlainLines(out, alerts_only=alerts_only)
    from rich.live import Live

    live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    return StatusLine(out, stack.enter_context(live))


class PlainLines:
    """Alerts, and a line of progress every few seconds of the run once the recorded part was read."""

    def __init__(self, out: Console, *, alerts_only: bool = False) -> None:
        from torchwatch.sinks.lines import AlertLines
        from torchwatch.sinks.progress import Pace, Progress

        self.progress: Progress = Progress()
        self._out = out
        self._alerts_only = alerts_only
        self._lines = AlertLines()
        self._pace = Pace()
        self._live = False
        self._ended = False

    def show(self, record: Record | None) -> None:
        """Print what is due."""
        from torchwatch.records import End, RunHeader
        from torchwatch.sinks.lines import end_text, header_text, show

        if record is None:
            self._live = True
        else:
            self.progress.feed(record)
        for line in self._lines.finish() if record is None else self._lines.feed(record):
            show(self._out, line)
        if isinstance(record, RunHeader) and not self._alerts_only:
            show(self._out, header_text(record))
        elif isinstance(record, End):
            self._ended = True
            show(self._out, end_text(record))
        elif self._live and not self._alerts_only and self._pace.is_due(self.progress):
            self._status()

    def finish(self, run: str) -> None:
        """Say where the run is if its end was not recorded."""
        from torchwatch.sinks.lines import show

        for line in self._lines.finish():
            show(self._out, line)
        if not self._ended and not self._alerts_only:
            self._status()
            self._out.print(unfinished(run), style="dim", soft_wrap=True)

    def _status(self) -> None:
        self._out.print(self.progress.line(), soft_wrap=True)


class StatusLine(PlainLines):
    """Alerts, and below them one line that is refreshed in place."""

    def __init__(self, out: Console, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out)
        self._screen = live
        self._clock = clock
        self._drawn_s = -REFRESH_S
        self._news_s = clock()

    def show(self, record: Record | None) -> None:
        """Print alerts above and refresh the line below, at most eight times a second."""
        now = self._clock()
        if record is not None:
            self._news_s = now
            super().show(record)
        if now - self._drawn_s >= REFRESH_S:
            self._drawn_s = now
            self._draw(now - self._news_s)

    def _draw(self, quiet_s: float) -> None:
        from rich.text import Text

        from torchwatch.text import duration

        line = self.progress.line()
        if quiet_s >= QUIET_S:
            line += f" · nothing new for {duration(quiet_s)}"
        self._screen.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)


class JsonLines:
    """One JSON object per line: alerts, notes and the end as recorded, and a status every few seconds."""

    def __init__(self, *, alerts_only: bool) -> None:
        from torchwatch.sinks.progress import Pace, Progress

        self._progress = Progress()
        self._pace = Pace()
        self._alerts_only = alerts_only
        self._live = False

    def show(self, record: Record | None) -> None:
        """Print what is due."""
        from torchwatch.records import Alert, End, Note, encode

        if record is None:
            self._live = True
        else:
            self._progress.feed(record)
        if isinstance(record, Alert) or (isinstance(record, (Note, End)) and not self._alerts_only):
            click.echo(encode(record).decode(), nl=False)
        elif self._live and not self._alerts_only and self._pace.is_due(self._progress):
            print_json(self._progress.as_json(), indent=False)

    def finish(self, run: str) -> None:  # noqa: ARG002 - as in Screen
        """A last status."""
        if not self._alerts_only:
            print_json(self._progress.as_json(), indent=False)


class _LogFile:
    """The log file as a screen."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        from torchwatch.sinks.logfile import LogFileSink

        self._sink = LogFileSink(path)
        stack.callback(self._sink.close)

    def show(self, record: Record | None) -> None:
        """Append what is due."""
        if record is not None:
            self._sink.write(record)

    def finish(self, run: str) -> None:
        """Nothing more: the sink closes with the command."""
