"""``torchwatch postmortem``: the report of a run, from its file alone or with the model on the table."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchwatch.commands._shared import Waiting, columns_option, json_option, print_json_text, run_argument
from torchwatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchwatch.report.report import Report

_PATIENCE_S = 2.0
_INTERRUPTED = 130


@click.command("postmortem")
@run_argument
@click.option(
    "--build",
    metavar="FILE.py:FUNCTION",
    help="A function of yours that returns AutopsyInputs(model, data): examine the model as well.",
)
@click.option(
    "--use-recipe", is_flag=True, help="Build with the recipe that the run remembers: runs its code."
)
@click.option("--checkpoint", metavar="FILE", help="Weights to load into the built model.")
@click.option(
    "--trust-checkpoint", is_flag=True, help="Load a checkpoint that can run code when it is unpickled."
)
@click.option("--examine", metavar="A,B", help="Only these examinations [default: all that apply].")
@click.option("--samples", type=click.IntRange(min=1), default=500, help="Samples to examine [default: 500].")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds for all examinations.",
)
@click.option("--device", metavar="D", help="Where to examine [default: cuda if there is one, else cpu].")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to write the report [default: RUN without its suffix].",
)
@columns_option
@json_option
def command(
    run: str, *, out: Path | None, columns: dict[str, str] | None, as_json: bool, **wanted: Any
) -> int:
    """Write the report of a run: what went wrong, since when and why, with plots.

    Writes report.html (one file that needs nothing else), report.md, report.json and the plots as PNG, and
    prints their paths. From the run file alone it says what the checks found; with --build it examines the
    model on data as well, and says which of training, architecture, data and task is to blame. RUN can be a
    log of another tool, as for `torchwatch diagnose`.

    \b
    Example:
      torchwatch postmortem runs/digits.jsonl --out report
      torchwatch postmortem runs/digits.jsonl --build train.py:build --checkpoint best.pt
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.report.jsonfile import render
    from torchwatch.report.write import check_writable, default_directory, write_report

    say = _said_when_slow(time.monotonic)
    report = _read(run, columns)
    spec = _spec(report, wanted)
    target = out if out is not None else default_directory(Path(run))
    interrupted = False
    if spec is not None:
        from torchwatch.commands._autopsy import examine

        check_writable(target)
        examined, interrupted = examine(spec, report.diagnosis, wanted)
        report = dataclasses.replace(report, autopsy=examined)
    paths = write_report(report, target, say)
    if as_json:
        print_json_text(render(report))
    else:
        for path in paths:
            click.echo(str(path))
    return _INTERRUPTED if interrupted else 0


def _spec(report: Report, wanted: dict[str, Any]) -> str | None:
    """What builds the model; None where no examination was asked for."""
    build: str | None = wanted["build"]
    recipe = report.found.header.recipe
    if wanted["use_recipe"]:
        if build is not None:
            raise UsageError("give either --build or --use-recipe")
        if not recipe:
            raise UsageError(
                "this run remembers no recipe: give --build FILE.py:FUNCTION instead of --use-recipe"
            )
        return recipe
    if build is None:
        alone = [
            n for n in ("checkpoint", "trust_checkpoint", "examine", "time_limit", "device") if wanted[n]
        ]
        if alone:
            raise UsageError(
                f"--{alone[0].replace('_', '-')} needs a model: give --build FILE.py:FUNCTION as well"
            )
    return build


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
