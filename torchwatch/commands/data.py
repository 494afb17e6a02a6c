"""``torchwatch data``: what is wrong with the data, before anybody trains on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchwatch.commands._shared import FOUND, console, json_option, print_json
from torchwatch.text import printable

if TYPE_CHECKING:
    from torchwatch.results import Autopsy, AutopsyInputs, Remark

_SAMPLES = 5_000


@click.command("data")
@click.argument("spec", metavar="FILE.py:FUNCTION")
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(min=1),
    default=_SAMPLES,
    show_default=True,
    help="How many samples of each split to look at; all where there are fewer.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of the choice of samples.")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), help="Write plots and data_quality.json there."
)
@json_option
def command(spec: str, *, samples: int, seed: int, out: Path | None, as_json: bool) -> int:
    """Look for what is wrong with the data: copies, leaks, shifts, labels one place off.

    FILE.py:FUNCTION is a function without arguments that returns AutopsyInputs, a dict of its fields, or a
    tuple (model, data). With `train_data` the splits are compared, with `groups` what they have in common. A
    model that does not run is no hindrance. The file is executed.

    Exit code 1 if something critical was found.

    \b
    Example:
      torchwatch data train.py:build --samples 20000
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.examinations.building import build

    found, note = _examined(build(spec), samples, seed)
    result = found["data_quality"]
    written = _written(found, out) if out is not None else []
    if as_json:
        print_json(
            {**found.as_json()["data_quality"], "about": found.as_json()["about"], "note": note or None}
        )
    else:
        _print(found, note)
        for path in written:
            click.echo(str(path))
    return FOUND if any(r.severity == "critical" for r in result.remarks) else 0


def _examined(inputs: AutopsyInputs, samples: int, seed: int) -> tuple[Autopsy, str]:
    """The examination, and a sentence about a model that does not run."""
    from torchwatch.errors import UsageError
    from torchwatch.examinations.stand_in import with_stand_in
    from torchwatch.postmortem import autopsy

    known: dict[str, Any] = {"samples": samples, "seed": seed}
    note = ""
    try:
        found = autopsy(inputs, examine=["data_quality"], **known)
    except UsageError as error:
        if error.__cause__ is None or isinstance(inputs.data, Iterator):  # what is read once is gone
            raise
        substitute = with_stand_in(inputs)  # the model raised; or the data did, and do so again
        found = autopsy(substitute, examine=["data_quality"], **known)
        note = f"The data were examined without the model, which does not run on them: {error}."
    outcome = found.outcomes[0]
    if outcome.status != "done":
        raise UsageError(f"the data could not be examined ({outcome.reason})")
    return found, note


def _print(found: Autopsy, note: str) -> None:
    """Remarks, the worst first, then what was not looked at."""
    out = console()
    about, result = found.about, found["data_quality"]
    shape = " × ".join(str(n) for n in about.inputs[about.main])
    sizes = " and ".join(f"{s.samples:,} of {s.name}" for s in result.splits)
    out.print(f"{sizes}: {about.task}, input {shape}", highlight=False, markup=False)
    for remark in result.remarks:
        _print_remark(remark, out)
    for sentence in [note, *result.not_checked] if note else result.not_checked:
        out.print(printable(sentence, 2000), style="dim", highlight=False, markup=False)


_STYLES = {"critical": "bold red", "warning": "yellow", "info": "dim"}


def _print_remark(remark: Remark, out: Any) -> None:
    from rich.text import Text

    line = Text(f"{remark.severity:8}  ", style=_STYLES[remark.severity])
    line.append(printable(remark.text, 2000), style="default")
    out.print(line, highlight=False)
    if remark.fix:
        out.print(f"          {printable(remark.fix, 2000)}", style="dim", highlight=False, markup=False)


def _written(found: Autopsy, out: Path) -> list[Path]:
    """The plots and the result as JSON."""
    import orjson

    from torchwatch.report.autopsy import draw_autopsy
    from torchwatch.report.plots import Picture

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "data_quality.json"]
    paths[0].write_bytes(
        orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    for name, drawn in draw_autopsy(found).items():
        if isinstance(drawn, Picture):
            paths.append(out / f"{name}.png")
            paths[-1].write_bytes(drawn.light)
    return paths
