"""``torchwatch postmortem``: the report of a run, from its file alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchwatch.commands._shared import Waiting, columns_option, json_option, print_json_text, run_argument

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.report.report import Report

_PATIENCE_S = 2.0


@click.command("postmortem")
@run_argument
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write the report [default: RUN without its suffix].",
)
@columns_option
@json_option
def command(run: str, *, out: Path | None, columns: dict[str, str] | None, as_json: bool) -> None:
    """Write the report of a run: what went wrong and since when, with plots.

    Writes report.html (one file that needs nothing else), report.md, report.json and the plots as PNG, and
    prints their paths. It reads the run file alone; what only the model and data could show is listed in the
    report as not examined. RUN can be a log of another tool, as for `torchwatch diagnose`.

    \b
    Example:
      torchwatch postmortem runs/digits.jsonl --out report
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.report.jsonfile import render
    from torchwatch.report.write import default_directory, write_report

    say = _said_when_slow(time.monotonic)
    report = _read(run, columns)
    paths = write_report(report, out if out is not None else default_directory(Path(run)), say)
    if as_json:
        print_json_text(render(report))
        return
    for path in paths:
        click.echo(str(path))


def _read(run: str, columns: dict[str, str] | None) -> Report:
    from torchwatch.report.report import build_report

    waiting = Waiting()
    try:
        return build_report(run, waiting, columns)
    finally:
        waiting.done()


def _said_when_slow(clock: Callable[[], float]) -> Callable[[str], None]:
    """Says on standard error what is being done: nothing in the first two seconds, then as often."""
    due_s = clock() + _PATIENCE_S

    def say(what: str) -> None:
        nonlocal due_s
        if clock() >= due_s:
            due_s = clock() + _PATIENCE_S
            click.echo(f"torchwatch: {what} …", err=True)

    return say
