"""``torchwatch compare``: what differs between runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torchwatch.commands._shared import Waiting, console, json_option, print_json, print_table
from torchwatch.errors import UsageError
from torchwatch.text import duration, number, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console

    from torchwatch.comparison import Compared, Comparison, Parting

_WIDEST = 40


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN…")
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to draw the losses [default: beside the first run, NAME-compared.png].",
)
@click.option("--no-plot", is_flag=True, help="Draw nothing.")
@json_option
def command(runs: tuple[str, ...], *, plot: Path | None, no_plot: bool, as_json: bool) -> None:
    """Compare runs: settings that differ, the step at which losses part, checks that do not agree.

    The first run is what the others are held against. Losses part where their moving medians stay apart by
    more than noise; runs from the same seed are the same to the bit until something differs.

    \b
    Example:
      torchwatch compare runs/before.jsonl runs/after.jsonl
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.comparison import compare

    if len(runs) < 2:
        raise UsageError("it takes two runs to compare: torchwatch compare A.jsonl B.jsonl")
    waiting = Waiting()
    try:
        found = compare(runs, waiting)
    finally:
        waiting.done()
    if as_json:
        print_json(found.as_json())
    else:
        _print(console(), found)
    if not no_plot and (plot is not None or not as_json):
        first = Path(runs[0])
        _draw(found, plot if plot is not None else first.with_name(f"{first.stem}-compared.png"))


def _draw(found: Comparison, path: Path) -> None:
    from torchwatch.comparison.plot import draw_comparison
    from torchwatch.report.write import write_private

    if any(len(run.loss.steps) for run in found.runs):
        write_private(path, draw_comparison(found))
        click.echo(f"torchwatch: drawn in {printable(path)}", err=True)


def _print(out: Console, found: Comparison) -> None:
    names = [printable(run.name, _WIDEST) for run in found.runs]
    rows = [[what, *(tell(run) for run in found.runs)] for what, tell in _ROWS]
    print_table(out, ["", *names], rows)
    out.print()
    for run, part in zip(found.runs[1:], found.partings, strict=True):
        out.print(
            f"{names[0]} and {printable(run.name, _WIDEST)}: {words(part)}", markup=False, highlight=False
        )
    _table(
        out, "Settings that differ", names, ((d.name, [_short(v) for v in d.values]) for d in found.settings)
    )
    checks = ((slug, [word or "–" for word in each]) for slug, each in found.checks.items())
    _table(out, "Checks that differ", names, checks)


def _table(out: Console, title: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    out.print()
    shown = [[printable(name, 2 * _WIDEST), *values] for name, values in rows]
    if not shown:
        out.print(f"{title}: none")
        return
    out.print(title, style="bold")
    print_table(out, ["", *names], shown)


def words(part: Parting) -> str:
    """How two losses go together, in a sentence."""
    if not part.common:
        return "no step with a loss in common"
    if part.identical_until is not None and part.parts_at is None and part.gap in (0.0, None):
        return f"the same loss to the bit on all {part.common:,} common steps"
    said = []
    if part.identical_until is not None:
        said.append(f"the same to the bit until step {part.identical_until:,}")
    if part.parts_at is not None:
        way = "higher" if (part.gap or 0.0) > 0 else "lower"
        said.append(
            f"the losses part at step {part.parts_at:,}; at the end the second is "
            f"{number(abs(part.gap or 0.0))} {way}"
        )
    else:
        said.append(f"no lasting difference beyond noise on {part.common:,} common steps")
    return "; ".join(said)


def _short(value: object) -> str:
    return "–" if value is None else printable(value, _WIDEST)


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _best(run: Compared) -> str:
    return "–" if run.best is None else f"{number(run.best[2])} at step {run.best[1]:,}"


def _issues(run: Compared) -> str:
    return ", ".join(f"{n} {word}" for word, n in run.diagnosis.severities.items() if n) or "none"


_ROWS: tuple[tuple[str, Callable[[Compared], str]], ...] = (
    ("model", lambda r: printable(r.diagnosis.model, _WIDEST)),
    ("status", lambda r: f"{printable(r.diagnosis.status, 20)}, {r.diagnosis.steps:,} steps"),
    ("duration", lambda r: duration(r.diagnosis.duration_s)),
    ("last training loss", lambda r: _number(r.last_loss)),
    ("best validation loss", _best),
    ("samples per second", lambda r: _number(r.samples_per_s)),
    ("energy in Wh", lambda r: _number(r.diagnosis.sustainability.energy_wh)),
    ("health score", lambda r: "–" if r.diagnosis.health_score is None else str(r.diagnosis.health_score)),
    ("issues", _issues),
)
