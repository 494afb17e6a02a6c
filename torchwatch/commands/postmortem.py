"""``torchwatch postmortem``: the report of a run, from its file alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchwatch.commands._shared import json_option, run_argument

if TYPE_CHECKING:
    from collections.abc import Callable

_SILENT_S = 2.0


@click.command("postmortem")
@run_argument
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write the report [default: RUN without its suffix].",
)
@json_option
def command(run: str, out: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click passes options by keyword
    """Write the report of a run: what went wrong and since when, with plots.

    Writes report.html (one file that needs nothing else), report.md, report.json and the plots as PNG, and
    prints their paths. It reads the run file alone; what only the model and data could show is listed in the
    report as not examined.

    \b
    Example:
      torchwatch postmortem runs/digits.jsonl --out report
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.report.jsonfile import render
    from torchwatch.report.report import build_report
    from torchwatch.report.write import default_directory, write_report

    progress = _Progress(time.monotonic)
    report = build_report(run, progress)
    paths = write_report(report, out if out is not None else default_directory(Path(run)), progress)
    if as_json:
        click.echo(render(report).decode(), nl=False)
        return
    for path in paths:
        click.echo(str(path))


class _Progress:
    """Says on standard error what is being done, once that has taken longer than two seconds in all."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()

    def __call__(self, what: str) -> None:
        if self._clock() - self._start >= _SILENT_S:
            click.echo(f"{what} …", err=True)
