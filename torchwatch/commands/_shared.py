"""What the commands share: their common options, JSON output and the console for people."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import click

from torchwatch.text import duration, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from torchwatch.records import Alert, Record
    from torchwatch.sinks.progress import Progress

F = TypeVar("F", bound="Callable[..., Any]")

FOUND = 1


def run_argument(function: F) -> F:
    """The run file; whether it can be read is the reader's affair, so that all commands say it alike."""
    return click.argument("run", metavar="RUN")(function)


def columns_option(function: F) -> F:
    """``--columns``: what is in which column of an imported log."""
    return click.option(
        "--columns",
        metavar="WHAT=COLUMN,…",
        callback=lambda _context, _option, text: _parsed_columns(text),
        help="Of a log in CSV, JSON lines or TensorBoard events: loss=train_loss,step=iteration.",
    )(function)


def _parsed_columns(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    from torchwatch.importers.columns import parse_columns

    return parse_columns(text)


def json_option(function: F) -> F:
    """``--json``: data for programs instead of text for people."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def fail_on_option(function: F) -> F:
    """``--fail-on``: exit code 1 when something that bad was found, resolved or not."""
    return click.option(
        "--fail-on",
        type=click.Choice(["critical", "warning"]),
        help="Exit with code 1 if an issue this bad, or worse, was found (resolved or not).",
    )(function)


def exit_code(found: Iterable[Alert], fail_on: str | None) -> int:
    """1 if one of the alerts is at least as bad as ``fail_on``, else 0."""
    from torchwatch.sinks.lines import rank_of

    if fail_on is None:
        return 0
    return FOUND if any(rank_of(a.severity) >= rank_of(fail_on) for a in found) else 0


def print_json(value: object, *, indent: bool = True) -> None:
    """Write strict JSON to standard output: NaN and infinities are null."""
    import orjson

    option = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    print_json_text(orjson.dumps(value, option=option | (orjson.OPT_INDENT_2 if indent else 0)))


def print_json_text(text: bytes) -> None:
    """Write JSON with everything escaped that a terminal could take for a command, or that hides text."""
    click.echo(re.sub(r"[^\n -~]", _escaped, text.decode()), nl=False)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return char if char.isprintable() else json.dumps(char)[1:-1]


def console(*, stderr: bool = False) -> Console:
    """For people: coloured on a terminal; on a pipe plain, and as wide as its longest line.

    ``NO_COLOR`` and ``TERM=dumb`` are obeyed.
    """
    from torchwatch.sinks.lines import Terminal

    stream = sys.stderr if stderr else sys.stdout
    return Terminal(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH)


_PIPE_WIDTH = 100_000


def print_table(out: Console, headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Aligned columns without lines; on a pipe one line per row, whatever its length."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as capture:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


class Waiting:
    """Says on standard error how far a long reading got; nothing in the first two seconds.

    Call it with every record; on a terminal one line is refreshed, elsewhere a line comes every 30 seconds.
    What importing a log had to decide (which of several runs, which column) is said at the end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from torchwatch.sinks.progress import Progress

        self.progress = Progress()
        self._clock = clock
        self._began_s = clock()
        self._due_s = self._began_s + _PATIENCE_S
        self._on_screen = False
        self._decided: list[str] = []

    def __call__(self, record: Record) -> None:
        """Take in a record that was just read."""
        self.progress.feed(record)
        if record.kind == "note" and getattr(record, "topic", "") == "import":
            self._decided.append(getattr(record, "message", ""))
        now = self._clock()
        if now >= self._due_s:
            self._say(f"reading: step {self.progress.step:,}, {duration(now - self._began_s)} so far")

    def _say(self, sentence: str) -> None:
        self._on_screen = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        if self._on_screen:
            click.echo(f"\r\x1b[2K{sentence}", nl=False, err=True, color=True)
        else:
            click.echo(f"torchwatch: {sentence}", err=True)
        self._due_s = self._clock() + (0.5 if self._on_screen else 30.0)

    def done(self) -> Progress:
        """Wipe the line; the progress at the last record."""
        if self._on_screen:
            click.echo("\r\x1b[2K", nl=False, err=True, color=True)
        for sentence in self._decided:
            click.echo(f"torchwatch: {printable(sentence)}", err=True)
        return self.progress


_PATIENCE_S = 2.0


def unfinished(run: str) -> str:
    """One sentence about a run file that has no end record: still written, or its process was killed."""
    try:
        quiet_s = max(0.0, time.time() - os.stat(run).st_mtime)  # noqa: PTH116 - no Path is needed
    except OSError:
        return "no end recorded"
    return f"no end recorded: last line {duration(quiet_s)} ago, so the run goes on, hangs or was killed"
