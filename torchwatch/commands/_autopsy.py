"""The part of ``torchwatch postmortem`` that needs torch: build, load, examine, and show how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import torch

from torchwatch.commands._shared import console
from torchwatch.errors import UsageError
from torchwatch.examinations.building import build, load_checkpoint
from torchwatch.examinations.conduct import INTERRUPTED
from torchwatch.examinations.examination import chosen
from torchwatch.postmortem import autopsy
from torchwatch.text import printable

if TYPE_CHECKING:
    from torchwatch.diagnosis import Diagnosis
    from torchwatch.results import Autopsy

Listen = Callable[[str, int, int], None]


def examine(spec: str, diagnosis: Diagnosis, wanted: dict[str, Any]) -> tuple[Autopsy, bool]:
    """Examine the built model; what was found, and whether Ctrl-C ended it early.

    Args:
        spec: ``FILE.py:FUNCTION``.
        diagnosis: of the run, as evidence for the verdict.
        wanted: the command's options.

    Raises:
        UsageError: nothing could be examined.
    """
    names = wanted["examine"].split(",") if wanted["examine"] else None
    chosen(names)  # an unknown one is said before anything is built
    inputs = build(spec)
    if wanted["checkpoint"]:
        loaded = load_checkpoint(inputs.model, wanted["checkpoint"], trust=wanted["trust_checkpoint"])
        click.echo(f"torchwatch: {printable(str(loaded))}", err=True)
    device = wanted["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    click.echo(f"torchwatch: examining on {device}", err=True)
    with _progress() as listen:
        found = autopsy(
            inputs,
            examine=names,
            device=device,
            diagnosis=diagnosis,
            listen=listen,
            until_interrupted=True,
            samples=wanted["samples"],
            time_limit_s=wanted["time_limit"],
        )
    if not list(found):
        reasons = "; ".join(f"{o.title}: {o.reason}" for o in found.outcomes)
        raise UsageError(f"no examination could run: {reasons}")
    return found, any(o.reason == INTERRUPTED for o in found.outcomes)


@contextmanager
def _progress() -> Iterator[Listen]:
    """A bar on a terminal; on a pipe a line per examination."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("examining", total=1)

        def listen(title: str, done: int, total: int) -> None:
            bar.update(task, description=title, completed=done, total=total)

        yield listen


def _lines() -> Listen:
    last = ""

    def listen(title: str, _done: int, _total: int) -> None:
        nonlocal last
        if title != last:
            last = title
            click.echo(f"torchwatch: {title}", err=True)

    return listen
