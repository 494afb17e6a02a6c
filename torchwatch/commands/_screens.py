"""Where a followed run is shown: a status line on a terminal, lines on a pipe, JSON, or a log file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import orjson
from rich.live import Live
from rich.text import Text

from torchwatch.commands._shared import console, print_json, print_json_text, unfinished
from torchwatch.records import Alert, End, Note, RunHeader, encode
from torchwatch.sinks.lines import INDENT, AlertLines, end_text, header_text, show
from torchwatch.sinks.logfile import LogFileSink
from torchwatch.sinks.progress import Pace, Progress
from torchwatch.text import duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from rich.console import Console

    from torchwatch.records import Record

REFRESH_S = 0.125
QUIET_S = 10.0
"""After so many seconds without a new line the status line says how long it has been."""


class Screen(Protocol):
    """Takes the records of a followed run; None stands for "nothing new at the moment"."""

    def show(self, record: Record | None, rank: int = 0) -> None:
        """Take in the next record of a rank; 0 is the one that is followed."""

    def finish(self, run: str) -> None:
        """The last record of the file was shown."""


def screen_for(stack: ExitStack, *, as_json: bool, alerts_only: bool) -> Screen:
    """The screen that suits standard output; the stack restores the terminal."""
    if as_json:
        return JsonLines(alerts_only=alerts_only)
    out = console()
    if not out.is_terminal or out.is_dumb_terminal or alerts_only:
        return PlainLines(out, alerts_only=alerts_only)
    live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    return StatusLine(out, stack.enter_context(live))


class PlainLines:
    """Alerts, and a line of progress every few seconds of the run once the recorded part was read."""

    def __init__(self, out: Console, *, alerts_only: bool = False) -> None:
        self.progress = Progress()
        self._out = out
        self._alerts_only = alerts_only
        self._lines = AlertLines()
        self._pace = Pace()
        self._ranks = RankLines()
        self._caught_up = False
        self._ended = False

    def show(self, record: Record | None, rank: int = 0) -> None:
        """Print what is due."""
        if record is None:
            self._caught_up = True
            self._print(self._lines.finish())
            return
        if self._alerts_only and isinstance(record, Note):
            return
        of_ranks = self._ranks.feed(record, rank)
        if rank:
            self._print(of_ranks)
            return
        self.progress.feed(record)
        self._print(self._lines.feed(record))
        if isinstance(record, End):
            self._ended = True
            self._print([end_text(record)])
        elif self._alerts_only:
            return
        elif isinstance(record, RunHeader):
            self._print([header_text(record)])
        elif self._caught_up and self._pace.is_due(self.progress):
            self._status()

    def finish(self, run: str) -> None:
        """Say where the run is if its end was not recorded."""
        self._print(self._lines.finish())
        if not self._ended and not self._alerts_only:
            self._status()
            self._print([Text(unfinished(run), "dim")])

    def _status(self) -> None:
        self._print([Text(self.progress.line())])

    def _print(self, lines: list[Text]) -> None:
        for line in lines:
            show(self._out, line)


class StatusLine(PlainLines):
    """Alerts, and below them a line that is refreshed in place, at most eight times a second."""

    def __init__(self, out: Console, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out)
        self._live = live
        self._clock = clock
        self._drawn_s = -REFRESH_S
        self._news_s = clock()

    def show(self, record: Record | None, rank: int = 0) -> None:
        """Print alerts above and refresh the line below."""
        now = self._clock()
        if record is not None:
            self._news_s = now
            super().show(record, rank)
        if now - self._drawn_s >= REFRESH_S:
            self._drawn_s = now
            self._draw(now - self._news_s)

    def _status(self) -> None:
        """Nothing: the line below says it already."""

    def _draw(self, quiet_s: float) -> None:
        line = self.progress.line()
        if quiet_s >= QUIET_S:
            line += f" · nothing new for {duration(quiet_s)}"
        self._live.update(Text(line), refresh=True)


class RankLines:
    """What other ranks than the followed one say: what no rank has said before, and how each ended."""

    def __init__(self) -> None:
        self._said: set[tuple[object, ...]] = set()
        self._lines: dict[int, AlertLines] = {}

    def feed(self, record: Record, rank: int) -> list[Text]:
        """The lines due because of a record; none for rank 0, which has lines of its own."""
        if isinstance(record, RunHeader) and not rank:
            self._said.clear()
            self._lines.clear()
        if isinstance(record, Alert):
            words: tuple[object, ...] = (record.check, record.layer, record.state, record.severity)
        elif isinstance(record, Note):
            words = (record.message,)
        else:
            return [_of_rank(rank, end_text(record))] if rank and isinstance(record, End) else []
        known = words in self._said
        self._said.add(words)
        if known or not rank:
            return []
        lines = self._lines.setdefault(rank, AlertLines())
        return [_of_rank(rank, line) for line in (*lines.feed(record), *lines.finish())]


def _of_rank(rank: int, text: Text) -> Text:
    return Text.assemble((f"{f'rank {rank}':<{INDENT}}", "bold"), text)


class JsonLines:
    """One JSON object per line: alerts, notes and the end as recorded, and a status every few seconds."""

    def __init__(self, *, alerts_only: bool) -> None:
        self._progress = Progress()
        self._pace = Pace()
        self._alerts_only = alerts_only
        self._caught_up = False
        self._ended = False

    def show(self, record: Record | None, rank: int = 0) -> None:
        """Print what is due; what another rank says has its ``rank``."""
        if record is None:
            self._caught_up = True
            return
        if rank:
            if isinstance(record, Alert) or (not self._alerts_only and isinstance(record, (Note, End))):
                print_json({**orjson.loads(encode(record)), "rank": rank}, indent=False)
            return
        self._progress.feed(record)
        if isinstance(record, Alert):
            self._print(record)
        elif self._alerts_only:
            return
        elif isinstance(record, End):
            self._status()
            self._print(record)
            self._ended = True
        elif isinstance(record, Note):
            self._print(record)
        elif self._caught_up and self._pace.is_due(self._progress):
            self._status()

    def finish(self, run: str) -> None:  # noqa: ARG002 - as in Screen
        """A last status where the end was not recorded."""
        if not self._alerts_only and not self._ended:
            self._status()

    def _status(self) -> None:
        print_json(self._progress.as_json(), indent=False)

    def _print(self, record: Record) -> None:
        print_json_text(encode(record))


class LogFile:
    """The log file as a screen; the stack closes it."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        self._sink = LogFileSink(path)
        self._ranks = RankLines()
        stack.callback(self._sink.close)

    def show(self, record: Record | None, rank: int = 0) -> None:
        """Append what is due."""
        if record is None:
            return
        of_ranks = self._ranks.feed(record, rank)
        if not rank:
            self._sink.write(record)
        for line in of_ranks:
            self._sink.append(line.plain)

    def finish(self, run: str) -> None:
        """Nothing: the sink is closed with the stack."""
