"""``torchwatch diagnose``: everything that is or was wrong in a run."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import click

from torchwatch.commands._shared import (
    Waiting,
    columns_option,
    console,
    exit_code,
    fail_on_option,
    json_option,
    print_json,
    print_table,
    run_argument,
    unfinished,
)
from torchwatch.errors import ConfigError
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from torchwatch.diagnosis import Diagnosis, Sustainability
    from torchwatch.engine import Incident
    from torchwatch.project import Project
    from torchwatch.records import Alert
    from torchwatch.run import RankSummary

    Limits = dict[str, dict[str, Any]]


@click.command("diagnose")
@run_argument
@click.option("--ignore", multiple=True, metavar="CHECK", help="Leave this check out; may be repeated.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="CHECK.LIMIT=NUMBER",
    help="Use this limit, not the recorded one; may be repeated. `torchwatch explain CHECK` lists them.",
)
@columns_option
@fail_on_option
@json_option
def command(
    run: str,
    *,
    ignore: tuple[str, ...],
    limits: tuple[str, ...],
    columns: dict[str, str] | None,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """List everything that is or was wrong in a run, what belongs together, and what was not looked at.

    All checks run over the file once more, with the limits that were in force when it was recorded, those of
    [tool.torchwatch] in the working directory's pyproject.toml, and those given here, which beat the others.
    Works on a run that is still being written. Of a distributed run the given rank's file is judged; with
    rank 0's the ranks are compared too, and what was seen live on each of the others is listed.

    RUN can be a log of another tool: Hugging Face trainer_state.json, Ultralytics results.csv, Lightning
    metrics.csv, MAE/DeiT log.txt, detectron2 metrics.json, Keras history.csv, TensorBoard events, or any CSV
    or JSON lines. What a log does not hold is listed as not run.

    \b
    Example:
      torchwatch diagnose output/trainer_state.json
      torchwatch diagnose log.csv --columns loss=train_loss,step=iteration
      torchwatch diagnose runs/digits.jsonl
      torchwatch diagnose runs/digits.jsonl --limit overfitting.patience=5 --fail-on critical
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.diagnosis import diagnose
    from torchwatch.run import other_ranks

    chosen, ignored = in_force(run, columns, parsed_limits(limits), ignore)
    waiting = Waiting()
    try:
        found = diagnose(run, limits=chosen, ignore=ignored, on_record=waiting, columns=columns)
    finally:
        waiting.done()
    ranks = other_ranks(run) if found.rank_files > 1 else []
    if as_json:
        told = [dataclasses.asdict(rank) for rank in ranks]
        print_json({**found.as_json(), "ranks": told} if told else found.as_json())
    else:
        _print(console(), found, run, ranks)
    return exit_code(found.issues, fail_on)


def in_force(
    run: str, columns: Mapping[str, str] | None, limits: Limits, ignore: tuple[str, ...]
) -> tuple[Limits, tuple[str, ...]]:
    """The limits and ignores that are to replace the recorded ones: the project's, below those given.

    Where the project says what the run was recorded with, nothing is replaced, so that the diagnosis can
    still be compared with what was seen live.
    """
    from torchwatch.check import all_checks
    from torchwatch.importers import open_run
    from torchwatch.project import FILE, read_project
    from torchwatch.records import RunHeader

    project = read_project()
    if not project.limits and not project.ignore:
        return limits, ignore
    with open_run(run, columns) as reader:
        header = next(reader, None)
    if not isinstance(header, RunHeader):
        return limits, ignore  # the diagnosis says what is wrong with it
    news = project.beside(header.limits, header.ignore)
    if news.limits or news.ignore:
        click.echo(f"torchwatch: {FILE} in this directory is used as well: {_named(news)}", err=True)
    if ignore:
        ignored = (*project.ignore, *ignore)
    else:
        known = tuple(slug for slug in header.ignore if slug in all_checks())
        ignored = (*known, *news.ignore) if news.ignore else ()
    return news.under(limits, ())[0], ignored


def _named(project: Project) -> str:
    limits = [f"{slug}.{n}={v}" for slug, values in project.limits.items() for n, v in values.items()]
    return ", ".join([*limits, *(f"without {slug}" for slug in project.ignore)])


def parsed_limits(texts: Iterable[str]) -> Limits:
    """``overfitting.patience=5`` as ``{"overfitting": {"patience": 5}}``. Raises ConfigError if malformed."""
    limits: Limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        check, _, limit = name.strip().partition(".")
        number = _number(value)
        if not check or not limit or number is None:
            raise ConfigError(
                f"--limit needs CHECK.LIMIT=NUMBER, such as overfitting.patience=5, not {text!r}"
            )
        limits.setdefault(check, {})[limit] = number
    return limits


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return None if math.isnan(value) else value
    return None


def _print(out: Console, found: Diagnosis, run: str, ranks: Sequence[RankSummary]) -> None:
    from rich.text import Text

    from torchwatch.sinks.lines import health_text, show

    for line in summary_lines(found):
        show(out, line)
    if found.status == "unfinished":
        show(out, Text(f"{'':10}{unfinished(run)}", "dim"))
    show(out, health_text(found.health_score, found.severities))
    for incident in found.incidents:
        out.print()
        _print_incident(out, incident)
    if ranks:
        out.print()
    for rank in ranks:
        show(out, rank_line(rank))
    lines = used_lines(found.sustainability)
    if lines:
        out.print()
        for line in lines:
            show(out, line)
    if found.not_run:
        out.print()
        out.print("Not run, so nothing is known about", style="bold")
        rows = [(f"  {slug}", printable(reason)) for slug, reason in found.not_run.items()]
        print_table(out, ("  check", "why"), rows)


def summary_lines(found: Diagnosis) -> list[Text]:
    """Which run, how far, and what is doubtful about the file."""
    from rich.text import Text

    from torchwatch.sinks.lines import plural
    from torchwatch.text import duration

    head = Text(f"{'run':10}").append(printable(found.run, 200), "bold")
    head.append(f" · {printable(found.model, 80)}" if found.model else "")
    length = f"{plural(found.steps, 'step')}, {plural(found.epochs, 'epoch')}"
    length += f" in {duration(found.duration_s)}" if found.duration_s else ""
    lines = [head.append(f" · {printable(found.status, 20)}: {length}")]
    if found.world > 1:
        text = (
            f"rank {found.rank} of {found.world} was judged; {plural(found.rank_files, 'rank')} with a file"
        )
        lines.append(Text(f"{'':10}{text}", "dim"))
    if found.torn_lines:
        lines.append(Text(f"{'':10}{plural(found.torn_lines, 'line')} could not be read", "yellow"))
    if found.unknown_limits:
        names = printable(", ".join(found.unknown_limits))
        lines.append(Text(f"{'':10}not known to this version, so left out: {names}", "yellow"))
    if found.replay_matches is False:
        lines.append(
            Text(f"{'':10}differs from what was seen live: {printable(found.replay_difference)}", "yellow")
        )
    return lines


def rank_line(rank: RankSummary) -> Text:
    """How another rank's part went, and what was seen there."""
    from rich.text import Text

    from torchwatch.sinks.lines import SEVERITY_STYLE, plural

    text = Text(f"{f'rank {rank.rank}':10}{printable(rank.status, 20)}: {plural(rank.steps, 'step')}")
    text.append("" if rank.health_score is None else f", health {rank.health_score}/100")
    for check, severity in rank.issues.items():
        text.append(f" · {printable(check, 60)}", SEVERITY_STYLE.get(severity, ""))
    return text.append("" if rank.issues else " · no issue")


def used_lines(used: Sustainability) -> list[Text]:
    """Where the run was best, what came after it, and what all of it used."""
    from rich.text import Text

    from torchwatch.text import duration, number, percent

    lines = []
    if used.optimal_step is not None:
        epoch = "" if used.optimal_epoch is None else f" (epoch {used.optimal_epoch})"
        after = f"; {percent(used.wasted_share or 0.0)} of the steps" if used.wasted_share else ""
        after += f" and {duration(used.wasted_s)} came after it" if after and used.wasted_s else ""
        lines.append(Text(f"{'best':10}validation at step {used.optimal_step}{epoch}{after}"))
    if used.energy_wh is not None:
        text = f"{number(used.energy_wh)} Wh, {number(used.co2_g or 0.0)} g of CO2"
        if used.wh_per_1k_samples is not None:
            text += f"; {number(used.wh_per_1k_samples)} Wh per 1,000 samples"
        if used.source is not None:
            text += f" ({used.source})"
        lines.append(Text(f"{'energy':10}{text}"))
    return lines


def _print_incident(out: Console, incident: Incident) -> None:
    from rich.text import Text

    from torchwatch.sinks.lines import INDENT, issue_text, show

    out.print(f"Incident {incident.id}", style="bold")
    show(out, issue_text(incident.root, fix=False))
    show(out, Text(f"{'':{INDENT}}{printable(incident.explanation, 3000)}"))
    for code in (incident.root.snippet or "").splitlines()[:20]:
        show(out, Text(f"{'':{INDENT}}{printable(code)}", "green"))
    for line in symptom_lines(incident.symptoms):
        show(out, line)


def symptom_lines(symptoms: Iterable[Alert]) -> list[Text]:
    """The first three of every check, and the others counted."""
    from torchwatch.sinks.lines import SHOWN_PER_BURST, issue_text, more_text, where

    by_check: dict[str, list[Alert]] = {}
    for symptom in symptoms:
        by_check.setdefault(symptom.check, []).append(symptom)
    lines = []
    for check, alerts in by_check.items():
        lines += [issue_text(a, fix=False) for a in alerts[:SHOWN_PER_BURST]]
        rest = [where(a) for a in alerts[SHOWN_PER_BURST:]]
        lines += [more_text(check, rest)] if rest else []
    return lines
