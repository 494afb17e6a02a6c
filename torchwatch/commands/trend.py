"""``torchwatch trend``: the runs of a folder, in the order in which they began."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchwatch.commands._shared import console, json_option, print_json, print_table
from torchwatch.text import duration, number, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from torchwatch.comparison import Entry, Project

_PATIENCE_S = 2.0
_WIDEST = 40


@click.command("trend")
@click.argument("folder", metavar="FOLDER", default="runs")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to draw losses and health scores [default: FOLDER/trend.png].",
)
@click.option("--no-plot", is_flag=True, help="Draw nothing.")
@json_option
def command(folder: str, *, plot: Path | None, no_plot: bool, as_json: bool) -> None:
    """List the runs of a folder (default: runs) and say what gets better or worse from run to run.

    Reads every run file below it; of a distributed run rank 0's. A trend is told when it is more than chance
    (Mann–Kendall, p < 0.05) over at least four runs.

    \b
    Example:
      torchwatch trend runs/
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.comparison import project_trend

    found = project_trend(folder, _said_when_slow(time.monotonic))
    if as_json:
        print_json(found.as_json())
    else:
        _print(console(), found)
    if not no_plot and (plot is not None or not as_json):
        _draw(found, plot if plot is not None else Path(folder) / "trend.png")


def _said_when_slow(clock: Callable[[], float]) -> Callable[[Path], None]:
    due_s = clock() + _PATIENCE_S

    def say(path: Path) -> None:
        nonlocal due_s
        if clock() >= due_s:
            due_s = clock() + _PATIENCE_S
            click.echo(f"torchwatch: reading {printable(path)} …", err=True)

    return say


def _draw(found: Project, path: Path) -> None:
    from torchwatch.comparison.plot import draw_project
    from torchwatch.report.write import write_private

    write_private(path, draw_project(found))
    click.echo(f"torchwatch: drawn in {printable(path)}", err=True)


def _print(out: Console, found: Project) -> None:
    headings = (
        "run",
        "began",
        "model",
        "status",
        "steps",
        "time",
        "loss",
        "best validation",
        "score",
        "issues",
        "Wh",
    )
    print_table(out, headings, (_row(entry) for entry in found.entries))
    for sentence in found.sentences:
        out.print(printable(sentence), style="bold")
    for path, why in found.unreadable:
        click.echo(f"torchwatch: {printable(path)} left out: {printable(why)}", err=True)


def _row(entry: Entry) -> list[str]:
    issues = ", ".join(f"{n} {word}" for word, n in entry.issues.items() if n) or "none"
    return [
        printable(entry.name, _WIDEST),
        printable(entry.began[:16].replace("T", " "), 16),
        printable(entry.model, _WIDEST),
        printable(entry.status, 20),
        f"{entry.steps:,}",
        duration(entry.duration_s),
        _number(entry.last_loss),
        _number(entry.best),
        "–" if entry.health_score is None else str(entry.health_score),
        issues,
        _number(entry.energy_wh),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)
