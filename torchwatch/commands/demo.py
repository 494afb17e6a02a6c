"""``torchwatch demo``: a healthy training, then one with a planted mistake, and what was found."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torchwatch.commands._demo.faults import FAULTS, HEALTHY
from torchwatch.commands._shared import console, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchwatch.commands._demo.faults import Fault, Recipe
    from torchwatch.commands._demo.judge import Judgement
    from torchwatch.diagnosis import Diagnosis
    from torchwatch.records import Alert

_MISSED = 1


@click.command("demo")
@click.option(
    "--fault",
    "name",
    type=click.Choice(list(FAULTS)),
    default="dead-relu",
    show_default=True,
    help="The mistake to plant.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Where the two runs and their reports go; what is there already is kept.",
)
@json_option
def command(name: str, out: Path, as_json: bool) -> int:  # noqa: FBT001 - click passes options by keyword
    """Train a small network and catch a planted fault.

    Trains a small convolutional network on the digit images that scikit-learn ships, first as it should be,
    then with a mistake in the loop. Alerts appear while it trains; afterwards both runs are diagnosed and
    their reports written. Needs the extra `demo`: pip install "torchwatch-monitor[demo]".

    The exit code is 0 if the mistake was named as the root of what went wrong and the healthy run was quiet,
    else 1.

    \b
    Example:
      torchwatch demo --fault missing-zero-grad
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.commands._demo.judge import judge
    from torchwatch.diagnosis import diagnose

    fault = FAULTS[name]
    say = console(stderr=True).print
    with _one_thread():
        say("1/2  healthy training: 1,437 images of handwritten digits, a network of three convolutions")
        healthy_run = _train(HEALTHY, out / "healthy.jsonl")
        say(f"2/2  the same with a mistake: {fault.planted}")
        faulty_run = _train(fault.recipe, out / f"{name}.jsonl")
    say("     writing the two reports …")
    reports = [_report(run) for run in (healthy_run, faulty_run)]
    healthy, faulty = diagnose(healthy_run), diagnose(faulty_run)
    judgement = judge(fault, healthy, faulty)
    if as_json:
        print_json(_as_json(name, fault, judgement, [healthy, faulty], reports))
    else:
        _show(fault, judgement, healthy, faulty_run, reports)
    return 0 if judgement.passed else _MISSED


def _train(recipe: Recipe, path: Path) -> Path:
    """Train under a progress bar that alerts are printed above; on a pipe there is no bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from torchwatch.commands._demo.training import train

    err = Console(stderr=True)
    columns = (
        TextColumn("     epoch {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=err, transient=True, redirect_stdout=False, disable=not err.is_terminal
    ) as bar:
        task = bar.add_task("", total=recipe.epochs)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            accuracy = f"validation accuracy {metrics['val_accuracy']:.1%}"
            bar.update(task, completed=epoch, description=accuracy)

        return train(recipe, path, on_epoch)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A network this small gains nothing from more threads, and loses much where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _report(run: Path) -> Path:
    from torchwatch.report.report import build_report
    from torchwatch.report.write import default_directory, write_report

    return write_report(build_report(run), default_directory(run))[0]


def _show(fault: Fault, judgement: Judgement, healthy: Diagnosis, run: Path, reports: list[Path]) -> None:
    from rich.text import Text

    out = console()
    rows = [
        ("planted", fault.planted),
        ("found", _found(judgement.root)),
        ("fits", _fit(fault, judgement)),
        ("healthy", _health(judgement, healthy)),
        ("report", f"{reports[1]} (healthy: {reports[0]})"),
        ("look", f"torchwatch tail --no-follow {run}"),
        ("", f"torchwatch postmortem {run}"),
    ]
    for label, text in rows:
        out.print(Text.assemble((f"{label:<9}", "bold"), text), soft_wrap=True)


def _found(root: Alert | None) -> str:
    if root is None:
        return "nothing"
    where = f" in {root.layer}" if root.layer else ""
    return f"{root.check}{where} since step {root.since_step} ({root.severity}): {root.title}"


def _fit(fault: Fault, judgement: Judgement) -> str:
    if not judgement.fits:
        layers = f" in {' or '.join(fault.layers)}" if fault.layers else ""
        first, last = fault.onset
        return f"no: expected {' or '.join(fault.roots)}{layers}, beginning in steps {first} to {last}"
    followed = f"; what followed from it: {', '.join(judgement.symptoms)}" if judgement.symptoms else ""
    return f"yes{followed}"


def _health(judgement: Judgement, healthy: Diagnosis) -> str:
    score = f"health {healthy.health_score}/100"
    if not judgement.alarms:
        return f"quiet, {score}"
    return f"false alarms: {', '.join(sorted({a.check for a in judgement.alarms}))}, {score}"


def _as_json(
    name: str, fault: Fault, judgement: Judgement, diagnoses: list[Diagnosis], reports: list[Path]
) -> dict[str, Any]:
    from dataclasses import asdict

    runs = [
        {"run": d.run, "report": str(r), "health_score": d.health_score, "severities": d.severities}
        for d, r in zip(diagnoses, reports, strict=True)
    ]
    return {
        "fault": name,
        "planted": fault.planted,
        "expected": {"roots": fault.roots, "layers": fault.layers, "onset": fault.onset},
        "found": asdict(judgement.root) if judgement.root is not None else None,
        "symptoms": judgement.symptoms,
        "fits": judgement.fits,
        "quiet": not judgement.alarms,
        "healthy": runs[0],
        "faulty": runs[1],
    }
